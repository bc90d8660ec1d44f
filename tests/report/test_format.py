"""Numbers and excerpts as the page writes them."""

import pytest

from glassbox.report.format import count, duration, energy, excerpt, instant, money, number, percent, size


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (count(12_345), "12,345"),
        (count(1_234_567), "1.23 M"),
        (count("many"), "–"),
        (count(True), "–"),
        (size(999), "999 B"),
        (size(1_500_000), "1.5 MB"),
        (duration(59.96), "1 min 00 s"),
        (duration(3.21), "3.2 s"),
        (duration(3_725), "1 h 02 min"),
        (duration(200_000), "2.3 days"),
        (duration(float("nan")), "–"),
        (percent(0.5764), "57.6 %"),
        (number(0.0000251), "2.51e-5"),
        (number(0.123456), "0.1235"),
        (number(9333.4), "9,333"),
        (number(0), "0"),
        (number("text"), "text"),
        (number(None), "–"),
        (energy(0.0004), "<0.001 Wh"),
        (energy(2500), "2.50 kWh"),
        (money(0.0123), "$0.0123"),
        (money(0.00001), "<$0.0001"),
        (money(12.5), "$12.50"),
        (money(0), "$0.00"),
        (instant("2026-01-31T10:20:30Z"), "2026-01-31 10:20 UTC"),
        (instant(None), "–"),
    ],
)
def test_numbers_as_people_read_them(written: str, expected: str) -> None:
    assert written == expected


def test_excerpts_are_cut_and_made_harmless() -> None:
    assert excerpt("ab\r\nc\x00\u202ed", 99) == "ab\nc\ufffd\ufffdd"
    assert excerpt("\ud800", 9) == "\ufffd"
    assert excerpt("abcdef", 3) == "abc …"
    assert excerpt(None, 3) == ""
