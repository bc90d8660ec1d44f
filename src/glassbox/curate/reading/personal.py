"""Placeholders for personal data: e-mail addresses, telephone numbers, public IP addresses, payment cards, access keys.

A kernel finds the places worth a look (an @, stretches of digits or of hexadecimal groups); the exact test is made only
around them, in time bounded by the place's length. Placeholders are Dolma's (arXiv:2402.00159) and two like them; kinds
and exemptions follow data curation practice: public addresses only, cards by Luhn's check and issuer.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from glassbox.curate.characters import utf8_buffer
from glassbox.curate.reading.places import AT, GROUPS, KEY_START, places

PLACEHOLDERS = {
    "key": b"|||KEY|||",
    "email": b"|||EMAIL_ADDRESS|||",
    "ip": b"|||IP_ADDRESS|||",
    "card": b"|||CARD_NUMBER|||",
    "phone": b"|||PHONE_NUMBER|||",
}
"""Kind -> what stands for it, in the order in which kinds claim a place."""
LOCAL = bytes(range(48, 58)) + bytes(range(65, 91)) + bytes(range(97, 123)) + b"._%+-"
LOCAL_LENGTH, DOMAIN_LENGTH = 64, 255
DOMAIN = re.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}))(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62})+")
NO_DOMAIN = re.compile(
    rb"(?i)\.(?:png|jpe?g|gif|svg|webp|js|ts|css|json|py|html?|example|test|invalid|localhost|local)$"
)
EXAMPLE = re.compile(rb"(?i)(?:^|\.)example\.(?:com|org|net)$")
"""Domains that RFC 2606 keeps for examples."""
IPV4 = re.compile(rb"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\w)")
VERSION = re.compile(rb"(?i)(?:\bv|versions?|release)[ :=\"'.]{0,3}$")
CARD = re.compile(rb"(?<![\w.,+-])\d(?:[ -]?\d){11,18}(?![\w-]|[.,]\d)")
ISSUER = re.compile(
    rb"4\d{12}(?:\d{3})?(?:\d{3})?|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}"
    rb"|(?:2131|1800)\d{11}|62\d{14,17}|6(?:011|4[4-9]\d|5\d\d)\d{12}|(?:50|5[6-9]|6[0-9])\d{10,17}"
)
"""Visa, Mastercard, American Express, Diners, JCB, UnionPay, Discover, Maestro."""
PHONE = re.compile(
    rb"(?<![\w.,/+=#-])(?<!\d )(?:"
    rb"(?:\+[1-9]\d{0,2}|00[1-9]\d{0,2}(?=[ .-]))(?:[ .-]?\(0?\d{0,4}\))?(?:[ .-]?\d{1,5}){2,6}(?: ?x\d{1,5})?"
    rb"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}(?P<us>[ .-]))\d{3}[ .-]\d{4}(?: ?x\d{1,5})?"
    rb"|\(?0[1-9]\d{0,3}\)?(?P<gap>[ .-])\d{2,8}(?:(?P=gap)\d{2,4}){0,4}"
    rb"|1[3-9]\d{9}"
    rb")(?![\w/=-]|[.,:]\d| \d)"
)
"""International, North American, with a trunk 0, Chinese mobile."""
CALLED = re.compile(rb"(?<![\w.,/+=#-])[(0-9][0-9 .()-]{5,17}\d(?:x\d{1,5})?(?![\w/=-]|[.,:]\d)")
"""Any number that words before it call a telephone's."""
CALLING = re.compile(
    rb"(?i)(?:phone|telephone|\btel|\bmobile|\bcell|\bcall|\bfax|\bdial|whatsapp|\bring|\bdesk|contact|reach)"
    rb"[^\d\n]{0,24}$|(?:\xe7\x94\xb5\xe8\xaf\x9d|\xe6\x89\x8b\xe6\x9c\xba|\xe4\xbc\xa0\xe7\x9c\x9f)[^\d\n]{0,24}$"
)
"""... phone, call, 电话 (telephone), 手机 (mobile), 传真 (fax) within 24 bytes before."""
CONTEXT = 48
KEY = re.compile(
    rb"(?<![\w-])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,82}|glpat-[\w-]{20}"
    rb"|sk-(?:[a-z]+-)?[A-Za-z0-9_]{20,200}|[rs]k_live_[A-Za-z0-9]{16,99}|xox[abprs]-[A-Za-z0-9-]{10,200}"
    rb"|AIza[\w-]{35}|hf_[A-Za-z0-9]{34})(?![\w-])"
)
PRIVATE = re.compile(rb"-----BEGIN (?:[A-Z]+ ){0,2}PRIVATE KEY(?: BLOCK)?-----")
PRIVATE_END = re.compile(rb"-----END (?:[A-Z]+ ){0,2}PRIVATE KEY(?: BLOCK)?-----")
PRIVATE_LENGTH = 20_000


class Span(NamedTuple):
    """A place in a text, in bytes, that holds personal data."""

    start: int
    end: int
    kind: str


def mask(texts: pa.Array, kinds: Collection[str]) -> tuple[pa.Array, list[dict[str, int]]]:
    """The texts (large_string, no nulls) with placeholders, and for each how many of each kind were put."""
    data, offsets = utf8_buffer(texts)
    first, kind, start, end = places(data, offsets)
    changed: dict[int, str] = {}
    counts: list[dict[str, int]] = [{} for _ in range(len(texts))]
    for row in np.flatnonzero(np.diff(first)).tolist():
        here = slice(first[row], first[row + 1])
        text = data[offsets[row] : offsets[row + 1]].tobytes()
        looked_at = zip(kind[here].tolist(), start[here].tolist(), end[here].tolist(), strict=True)
        spans = _apart([span for place in looked_at for span in _looked_at(text, *place) if span.kind in kinds])
        if spans:
            changed[row] = _replaced(text, spans).decode()
            counts[row] = dict(Counter(span.kind for span in spans))
    if not changed:
        return texts, counts
    return pa.array([changed.get(row, text) for row, text in enumerate(texts.to_pylist())], texts.type), counts


def _looked_at(text: bytes, kind: int, start: int, end: int) -> Iterator[Span]:
    """What the place that the kernel found holds."""
    if kind == AT:
        yield from _email(text, start)
    elif kind == KEY_START:
        yield from _key(text, start)
    elif kind == GROUPS:
        if _is_public(text[start:end]):
            yield Span(start, end, "ip")
    else:
        yield from _numbers(text, start, min(end + CONTEXT, len(text)), end)


def _email(text: bytes, at: int) -> Iterator[Span]:
    before = text[max(at - LOCAL_LENGTH, 0) : at]
    local = before[len(before.rstrip(LOCAL)) :].lstrip(b".%-")
    domain = DOMAIN.match(text, at + 1, at + 1 + DOMAIN_LENGTH)
    # The user of a repository's address (git@host:path) is no person.
    if not local or not domain or local == b"git":
        return
    name = domain[0].rstrip(b"-")
    top = name.rpartition(b".")[2]
    if len(top) > 1 and top.isalpha() and not NO_DOMAIN.search(name) and not EXAMPLE.search(name):
        yield Span(at - len(local), at + 1 + len(name), "email")


def _numbers(text: bytes, start: int, limit: int, end: int) -> Iterator[Span]:
    """Addresses, cards and telephone numbers that begin in a stretch of digits; `limit` is how far a look may go."""
    for found in IPV4.finditer(text, start, limit):
        if _is_public(found[0]) and not VERSION.search(text, max(found.start() - 16, 0), found.start()):
            yield Span(*found.span(), "ip")
    for found in CARD.finditer(text, start, limit):
        digits = found[0].translate(None, b" -")
        if ISSUER.fullmatch(digits) and _luhn(digits):
            yield Span(*found.span(), "card")
    called = CALLING.search(text[max(start - CONTEXT, 0) : start])
    for pattern in (PHONE, CALLED) if called else (PHONE,):
        for found in pattern.finditer(text, start, limit):
            digits = found[0].partition(b"x")[0].translate(None, b" .()+-")
            # A trunk 0 with few digits after it is a time of day or a date.
            fewest = 9 if digits.startswith(b"0") and not called else 7
            if found.start() < end and fewest <= len(digits) <= 15:
                yield Span(*found.span(), "phone")


def _is_public(name: bytes) -> bool:
    """Whether an address is routed globally; names of versions and well-known services (1.1.1.1) are not meant."""
    groups = name.split(b":")
    if len(groups) > 1 and max(map(len, groups)) < 3:
        return False
    if len(groups) == 1 and all(len(part) == 1 for part in name.split(b".")):
        return False
    try:
        address = ipaddress.ip_address(name.decode())
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


def _luhn(digits: bytes) -> bool:
    values = [byte - 48 for byte in reversed(digits)]
    return sum(values[::2] + [value * 2 - 9 * (value > 4) for value in values[1::2]]) % 10 == 0


def _key(text: bytes, start: int) -> Iterator[Span]:
    if found := KEY.match(text, start):
        yield Span(*found.span(), "key")
    elif (private := PRIVATE.match(text, start)) and (
        last := PRIVATE_END.search(text, private.end(), private.end() + PRIVATE_LENGTH)
    ):
        yield Span(start, last.end(), "key")


def _apart(spans: list[Span]) -> list[Span]:
    """The spans in order; of two that overlap the one whose kind comes first stays, or the one that began first."""
    rank = {kind: place for place, kind in enumerate(PLACEHOLDERS)}
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, rank[span.kind], -span.end)):
        if kept and span.start < kept[-1].end:
            if rank[span.kind] >= rank[kept[-1].kind]:
                continue
            kept.pop()
        kept.append(span)
    return kept


def _replaced(text: bytes, spans: list[Span]) -> bytes:
    pieces, place = [], 0
    for span in spans:
        pieces += [text[place : span.start], PLACEHOLDERS[span.kind]]
        place = span.end
    return b"".join([*pieces, text[place:]])
