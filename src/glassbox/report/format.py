"""Numbers as people read them. A missing number is an en dash."""

import math
import unicodedata
from typing import Any

NONE = "–"


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number (true and false are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    """12,345 · 1.23 million is written 1.23 M from a million on."""
    if not is_number(value):
        return NONE
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def size(value: Any) -> str:
    """Bytes in the decimal unit that reads best."""
    if not is_number(value):
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(value: Any) -> str:
    """Seconds as 3.2 s, 4 min 05 s, 2 h 10 min or 3.4 days."""
    if not is_number(value):
        return NONE
    if value < 59.95:
        return f"{value:.1f} s"
    seconds = round(value)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds / 86400:.1f} days"


def percent(value: Any, digits: int = 1) -> str:
    """A share of 1 as a percentage."""
    return f"{value * 100:.{digits}f} %" if is_number(value) else NONE


def number(value: Any, digits: int = 4) -> str:
    """A number with so many significant digits; text and booleans as they are."""
    if isinstance(value, (bool, str)):
        return str(value)
    if not is_number(value):
        return NONE
    if value == 0:
        return "0"
    if abs(value) >= 10 ** min(digits, 3):
        return f"{value:,.0f}"
    text = f"{value:.{digits if abs(value) >= 1e-4 else digits - 1}g}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def energy(value: Any) -> str:
    """Watt-hours, or kilowatt-hours from a thousand on."""
    if not is_number(value):
        return NONE
    if 0 < value < 0.001:
        return "<0.001 Wh"
    return f"{value / 1000:.2f} kWh" if value >= 1000 else f"{number(value, 3)} Wh"


def money(value: Any) -> str:
    """US dollars; sums below one dollar with four decimals."""
    if not is_number(value):
        return NONE
    if 0 < value < 0.0001:
        return "<$0.0001"
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


def instant(value: Any) -> str:
    """2026-01-31T10:20:30Z as 2026-01-31 10:20 UTC."""
    text = str(value or "")
    return f"{text[:10]} {text[11:16]} UTC" if len(text) >= 16 and text[10] == "T" else text or NONE


def excerpt(text: Any, characters: int) -> str:
    """The beginning of an untrusted text: at most so many characters, control characters shown as the replacement sign.

    Line ends and tabs stay. Bidirectional overrides are replaced too: they would reorder the page around them.
    """
    text = text if isinstance(text, str) else "" if text is None else str(text)
    cut = text[:characters]
    shown = "".join(
        "\ufffd" if char in _BIDI or (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t") else char
        for char in cut.replace("\r\n", "\n")
    )
    return shown + " …" if len(text) > characters else shown


_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
