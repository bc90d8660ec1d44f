"""Files that a setting names: one file, all of a folder, or those of a pattern."""

from pathlib import Path

from glassbox.errors import RequestError


def files_at(given: str, endings: tuple[str, ...], what: str) -> list[Path]:
    """The files at a path, sorted: itself, whatever its ending; those below a folder, by ending; or a pattern's.

    `what` names the setting and says what its files are for in the RequestError that none raises.
    """
    path = Path(given).expanduser()
    if any(letter in given for letter in "*?["):
        anchor = Path(path.anchor)
        found = sorted(one for one in anchor.glob(str(path.relative_to(anchor))) if one.is_file())
    elif path.is_file():
        found = [path]
    else:
        found = sorted(one for one in path.rglob("*") if one.name.lower().endswith(endings) and one.is_file())
    if not found:
        why = "does not exist" if not path.exists() else f"holds no {' or '.join(endings[:3])} file"
        raise RequestError(f"{what}: {given} {why}; set its path to your data")
    return found
