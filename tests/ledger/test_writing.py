"""A file appears whole or not at all."""

from pathlib import Path

import pytest

from glassbox.ledger.writing import atomic_folder, atomic_open, write_json


def test_a_failed_write_leaves_the_old_file_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with atomic_open(path) as file:
            file.write("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_a_failed_folder_does_not_appear(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "whole") as folder:
            (folder / "part.bin").write_bytes(b"x")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "whole") as folder:
        (folder / "part.bin").write_bytes(b"x")
    assert (tmp_path / "whole" / "part.bin").read_bytes() == b"x"
