"""Hashes of files and of settings, and the manifest of a finished folder."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from glassbox.errors import IntegrityError, RequestError
from glassbox.ledger.writing import TEMPORARY, atomic_open, write_json

MANIFEST = "manifest.json"
MANIFEST_KEYS = {"fingerprint", "kind", "gives", "settings", "seed", "inputs", "raw", "code", "files"}


def digest(value: Any) -> str:
    """SHA-256 of a plain value, as hex; equal values give equal digests whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RawHashes:
    """SHA-256 of raw input files, remembered by path, size and modification time: a second run need not read them."""

    def __init__(self, cache: Path):
        self.cache = cache
        try:
            self.known: dict[str, list[Any]] = json.loads(cache.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            self.known = {}

    def __call__(self, files: list[Path]) -> dict[str, str]:
        """path -> hash of each file. Raises RequestError for a file that cannot be read."""
        hashes, changed = {}, False
        for file in files:
            try:
                stat = file.stat()
                key, stamp = str(file), [stat.st_size, stat.st_mtime_ns]
                if self.known.get(key, [None])[:-1] != stamp:
                    self.known[key], changed = [*stamp, hash_file(file)], True
            except OSError as error:
                raise RequestError(f"{file}: input cannot be read ({error.strerror})") from None
            hashes[key] = self.known[key][-1]
        if changed and self.cache.parent.exists():
            write_json(self.cache, self.known)
        return hashes


def artefact_files(folder: Path) -> list[Path]:
    """Every file of a stage's folder that its manifest must list, sorted by relative path."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        files += [Path(parent, name) for name in names if not name.startswith(TEMPORARY)]
    return sorted(file for file in files if file != folder / MANIFEST)


def manifest_text(folder: Path, about: dict[str, Any]) -> str:
    """The manifest of `folder`, ready to be written: `about`, and size and hash of every file."""
    files = {
        file.relative_to(folder).as_posix(): {"sha256": hash_file(file), "bytes": file.stat().st_size}
        for file in artefact_files(folder)
    }
    return json.dumps({**about, "files": files}, indent=1, ensure_ascii=False) + "\n"


def seal(folder: Path, text: str) -> None:
    """Write the manifest, which marks the folder finished."""
    with atomic_open(folder / MANIFEST) as file:
        file.write(text)


def manifest_hash(folder: Path) -> str | None:
    """SHA-256 of a finished folder's manifest, which stands for all of its content; None if it is not finished."""
    path = folder / MANIFEST
    return hash_file(path) if path.exists() else None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished folder; None if the stage is not finished.

    Raises IntegrityError if there is one but it is not a manifest.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not manifest.keys() >= MANIFEST_KEYS:
        raise IntegrityError(f"{path}: damaged; delete {folder} and run the recipe again to make it anew")
    return manifest


def check_folder(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """What differs between a folder and its manifest: one sentence a file, empty if all is as it was sealed."""
    wrong = []
    present = {file.relative_to(folder).as_posix() for file in artefact_files(folder)}
    for name, entry in manifest["files"].items():
        path = folder / name
        if name not in present:
            wrong.append(f"{path}: missing")
        elif path.stat().st_size != entry["bytes"]:
            wrong.append(f"{path}: {path.stat().st_size:,} bytes where {entry['bytes']:,} were sealed")
        elif hash_file(path) != entry["sha256"]:
            wrong.append(f"{path}: content differs from what was sealed")
    return wrong + [f"{folder / name}: not in the manifest" for name in sorted(present - set(manifest["files"]))]
