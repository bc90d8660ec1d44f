"""Files that a setting names: one file, all of a folder, or those of a pattern."""

from pathlib import Path

from glassbox.errors import RequestError


def home(given: str) -> Path:
    """The path; a ~ that names no user stands for itself."""
    try:
        return Path(given).expanduser()
    except RuntimeError:
        return Path(given)


def files_at(given: str, endings: tuple[str, ...], what: str, yours: str = "your data") -> list[Path]:
    """The files at a path, sorted: itself, whatever its ending; those below a folder, by ending; or a pattern's.

    `what` names the setting and says what its files are for in the RequestError that none raises, or what is no
    pattern.
    """
    path = home(given)
    if path.is_file():
        found = [path]
    elif any(letter in given for letter in "*?[") and not path.exists():
        found = matches(path, what)
    else:
        found = sorted(one for one in path.rglob("*") if one.name.lower().endswith(endings) and one.is_file())
    if not found:
        why = "does not exist" if not path.exists() else f"holds no {' or '.join(endings[:3])} file"
        raise RequestError(f"{what}: {given} {why}; set its path to {yours}")
    return found


def matches(pattern: Path, what: str) -> list[Path]:
    """The files that a pattern fits, sorted."""
    anchor = Path(pattern.anchor)
    try:
        return sorted(one for one in anchor.glob(str(pattern.relative_to(anchor))) if one.is_file())
    except ValueError as error:  # such as a**b
        raise RequestError(f"{what}: {pattern} is no pattern: {error}") from None
