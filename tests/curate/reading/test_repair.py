"""Repair: what ftfy mends is mended, sound text of all languages stays as it is, hostile text costs bounded time."""

import unicodedata
import zipfile
from pathlib import Path

import ftfy
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.reading.repair import CONFIG, LONGEST_STACK, repair


def repaired(*texts: str) -> list[str]:
    return repair(pa.array(texts, pa.large_string())).to_pylist()


@pytest.mark.parametrize(
    ("broken", "sound"),
    [
        ("cafÃ© dÃ©jÃ\xa0 vu", "café déjà vu"),
        ("Itâ€™s schÃ¶n", "It’s schön"),
        ("cafe\u0301", "café"),
        ("\ufeffhead\x00 and\x07 bell", "head and bell"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
    ],
)
def test_broken_text_is_mended(broken: str, sound: str) -> None:
    assert repaired("plain", broken, "中文") == ["plain", sound, "中文"]


def test_sound_text_is_left_alone() -> None:
    sound = ["“curly” ﬁt &amp; é", "中文，全角（好）。", "naïve Œuvre", "a\tb\r\n\n\n c\x0c", "", "한국어 हिन्दी עִבְרִית"]
    assert repaired(*sound) == sound


def test_sound_pages_of_four_hundred_languages_only_take_form_nfc(data: Path) -> None:
    with zipfile.ZipFile(data / "udhr" / "udhr2.zip") as archive:
        texts = [archive.read(name).decode("utf-8", "replace") for name in archive.namelist() if name.endswith(".txt")]
    expected = [unicodedata.normalize("NFC", text.replace("\ufeff", "")) for text in texts]
    changed = [(a, b) for a, b in zip(repaired(*texts), expected, strict=True) if a != b]
    assert len(texts) > 300
    assert len(changed) <= 0.02 * len(texts)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.text(alphabet="aÃ©â€™\x80\x9f é中“”»ŒÂ Øāв\u0301\n\ufeff²×≈°ВЂΒ"), max_size=4))
def test_the_quick_look_misses_nothing_that_ftfy_would_change(texts: list[str]) -> None:
    lines = [ftfy.fix_text(line, CONFIG) for text in texts for line in text.split("\n")]
    assert [line for text in repaired(*texts) for line in text.split("\n")] == lines


@settings(deadline=None)
@given(st.text(max_size=200))
def test_repair_is_in_form_nfc_and_ascii_stays(text: str) -> None:
    (once,) = repaired(text)
    assert unicodedata.is_normalized("NFC", once)
    assert repaired(once)[0] == once or not text.isascii()


@pytest.mark.parametrize("unit", ["Ã", "Ã©", "â€", "\x80", "\u0301\u0316", "ÃÂ", "\ufeff"])
def test_hostile_text_comes_to_an_end(unit: str) -> None:
    (out,) = repaired("a" + unit * 200_000)
    assert len(out) <= 1 + 200_000 * len(unit)


def test_stacks_of_marks_are_left_as_they_are() -> None:
    stack = "a" + "\u0316\u0301" * LONGEST_STACK
    assert repaired(stack) == [stack]
