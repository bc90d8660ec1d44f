"""Files that a setting names, and what is said of names that cannot be."""

from pathlib import Path

import pytest

from glassbox.errors import RequestError
from glassbox.recipe.paths import files_at, home


def test_a_file_a_folder_and_a_pattern_are_told_apart(tmp_path: Path) -> None:
    names = ("a[1].txt", "b.txt", "c.md", "below/d.TXT")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = {
        given: [path.relative_to(tmp_path).as_posix() for path in files_at(str(tmp_path / given), (".txt",), "it")]
        for given in ("a[1].txt", "c.md", "", "[bc].*", "**/*.TXT")
    }
    assert found == {
        **{"a[1].txt": ["a[1].txt"], "c.md": ["c.md"], "": ["a[1].txt", "b.txt", "below/d.TXT"]},
        **{"[bc].*": ["b.txt", "c.md"], "**/*.TXT": ["below/d.TXT"]},
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [("a**b", "is no pattern"), ("~no-such-user/x", "does not exist"), ("no\0name", "does not exist"), ("*.x", "it: ")],
)
def test_what_names_no_file_is_a_sentence(given: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        files_at(given, (".txt",), "it")
    assert home(given) == Path(given)
