"""Which language a text is in: fastText's lid.176, among the languages that are written in the text's script.

Scripts are told by code points, so a script of one language (Thai, Greek, Hangul) leaves no doubt, Kana means Japanese
and Han without Kana Chinese. Codes are lid.176's (en, de, zh, yue, ...).
"""

from functools import cache

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import LETTER, character_tables, decode, utf8_buffer
from glassbox.curate.rules.language_model import READ_CHARACTERS, LanguageModel, probabilities, read_model

LATIN, HAN, KANA = "Latin", "Han", "Kana"
SCRIPTS: dict[str, tuple[str, str]] = {
    "other": ("", ""),
    LATIN: ("41-24F 1E00-1EFF 2C60-2C7F A720-A7FF FF21-FF5A", ""),
    "Cyrillic": (
        "400-52F 1C80-1C8F 2DE0-2DFF A640-A69F",
        "av az ba be bg bs bxr ce cv kk krc kv ky lez mhr mk mn mrj myv os ru rue sah sh sr tg tk tt tyv uk uz xal",
    ),
    "Arabic": ("600-6FF 750-77F 8A0-8FF FB50-FDFF FE70-FEFF", "ar arz azb ckb fa lrc mzn pnb ps sd ug ur"),
    "Devanagari": ("900-97F A8E0-A8FF", "bh dty gom hi mai mr ne new sa"),
    "Bengali": ("980-9FF", "as bn bpy"),
    HAN: ("3005-3007 3400-4DBF 4E00-9FFF F900-FAFF 20000-3FFFF", "wuu yue zh"),
    KANA: ("3040-30FF 31F0-31FF FF66-FF9F", "ja"),
    "Hangul": ("1100-11FF 3130-318F AC00-D7AF", "ko"),
    "Greek": ("370-3FF 1F00-1FFF", "el"),
    "Hebrew": ("590-5FF FB1D-FB4F", "he yi"),
    "Thai": ("E00-E7F", "th"),
    "Georgian": ("10A0-10FF 1C90-1CBF", "ka xmf"),
    "Armenian": ("530-58F", "hy"),
    "Ethiopic": ("1200-139F", "am"),
    "Khmer": ("1780-17FF", "km"),
    "Lao": ("E80-EFF", "lo"),
    "Burmese": ("1000-109F", "my"),
    "Tamil": ("B80-BFF", "ta"),
    "Telugu": ("C00-C7F", "te"),
    "Kannada": ("C80-CFF", "kn"),
    "Malayalam": ("D00-D7F", "ml"),
    "Gujarati": ("A80-AFF", "gu"),
    "Gurmukhi": ("A00-A7F", "pa"),
    "Oriya": ("B00-B7F", "or"),
    "Sinhala": ("D80-DFF", "si"),
    "Tibetan": ("F00-FFF", "bo"),
    "Thaana": ("780-7BF", "dv"),
}
"""Script -> its code points, and the languages written in it; Latin: all that are in no other, and ALSO_LATIN."""
ALSO_LATIN = ("az", "bs", "gom", "sh", "sr", "tk", "uz")
SYLLABIC = (HAN, KANA, "Hangul")
SYLLABLE = 3.0
"""Letters that one character of a SYLLABIC script counts as: a page of Chinese with some English terms is Chinese."""
LEAST_SHARE = 0.25
"""Of the letters, from which the languages of a second script are thought of."""
LEAST_KANA = 0.05
"""Of Han and Kana together, from which they are Japanese and below which Chinese."""


def identify_batch(texts: pa.Array) -> tuple[list[str], NDArray[np.float32]]:
    """The likeliest language of the first 2,000 characters of each large_string (n,), and its probability (n,).

    ("", 0) where there are no letters, or most are of a script in which the model knows no language. The probability is
    the model's, shared among the languages whose script occurs.
    """
    model, possible = _model()
    found = probabilities(texts, model).astype(np.float64) * (_scripts(texts) @ possible > 0)
    total = found.sum(1)
    best = found.argmax(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = np.where(total > 0, found[np.arange(len(best)), best] / total, 0)
    codes = [model.codes[k] if share else "" for k, share in zip(best.tolist(), total.tolist(), strict=True)]
    return codes, scores.astype(np.float32)


@cache
def _model() -> tuple[LanguageModel, NDArray[np.float32]]:
    """The model, and (scripts, languages) 1 where a language is written in a script."""
    model = read_model()
    possible = np.zeros((len(SCRIPTS), len(model.codes)), np.float32)
    for row, (_, languages) in enumerate(SCRIPTS.values()):
        possible[row, [model.codes.index(code) for code in languages.split()]] = 1
    latin = possible[_number(LATIN)]
    latin[possible.sum(0) == 0] = 1
    latin[[model.codes.index(code) for code in ALSO_LATIN]] = 1
    return model, possible


def _number(script: str) -> int:
    return list(SCRIPTS).index(script)


@cache
def _script_table() -> NDArray[np.uint8]:
    """Every code point's script, as its number."""
    table = np.zeros(0x110000, np.uint8)
    for number, (ranges, _) in enumerate(SCRIPTS.values()):
        for stretch in ranges.split():
            first, last = (int(point, 16) for point in stretch.split("-"))
            table[first : last + 1] = number
    return table


def _scripts(texts: pa.Array) -> NDArray[np.float32]:
    """(texts, scripts) 1 for the scripts that decide which languages a text can be in."""
    data, offsets = utf8_buffer(texts)
    letters = np.zeros((len(texts), len(SCRIPTS)), np.float32)
    _count_scripts(data, offsets, character_tables()[0], _script_table(), letters)
    letters[:, [_number(script) for script in SYLLABIC]] *= SYLLABLE
    han, kana = _number(HAN), _number(KANA)
    both = letters[:, han] + letters[:, kana]
    japanese = letters[:, kana] > LEAST_KANA * both
    letters[:, han], letters[:, kana] = np.where(japanese, 0, both), np.where(japanese, both, 0)
    present = (letters >= LEAST_SHARE * letters.sum(1, keepdims=True)) | (letters == letters.max(1, keepdims=True))
    # Mostly letters of scripts that no language of the model has: a second script says nothing of the text.
    known = letters[:, 0] * 2 <= letters.sum(1)
    return (present & (letters > 0) & known[:, None]).astype(np.float32)


@numba.njit(nogil=True, cache=True)
def _count_scripts(data, offsets, kinds, scripts, out) -> None:  # type: ignore[no-untyped-def]
    points = np.empty(READ_CHARACTERS, np.int32)
    for d in range(len(out)):
        end, characters = offsets[d], 0
        while end < offsets[d + 1] and characters < READ_CHARACTERS:
            end += 1
            while end < offsets[d + 1] and data[end] & 0xC0 == 0x80:
                end += 1
            characters += 1
        n = decode(data, offsets[d], end, points)
        for i in range(n):
            if kinds[points[i]] & LETTER:
                out[d, scripts[points[i]]] += 1
