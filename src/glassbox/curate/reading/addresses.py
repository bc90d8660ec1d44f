"""What a document's address alone decides: block lists of hosts and addresses, word lists, and one form of an address.

Order and meaning of the tests follow datatrove's URL filter and RefinedWeb (arXiv:2306.01116, app. G.1): domain, host,
address, hard word, soft words, strict substring; the first hit decides.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import mix, utf8_buffer
from glassbox.curate.reading.jsonl import lines
from glassbox.errors import RequestError
from glassbox.recipe.paths import files_at, home
from glassbox.recipe.sources import UrlRules

LONGEST = 4096
"""Characters of an address that are looked at."""
PREFIX = 4
"""Characters that a strict word is found by."""
CHUNK = 100_000
"""Entries of a list that are in memory as text at a time."""
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
NETLOC_END = re.compile(r"[/?#\\]")
SESSION = re.compile(r";jsessionid=[^/?#]*", re.IGNORECASE)
TRACKING = re.compile(
    r"(?:utm_\w*|fbclid|gclid|dclid|gbraid|wbraid|msclkid|yclid|twclid|ttclid|igshid|mc_[ce]id|_ga|_gl|_hs\w*|ref_src"
    r"|spm|phpsessid|jsessionid)(?:=|$)",
    re.IGNORECASE,
)
"""Query parameters that say how a reader came to a page, not which page it is."""
DEFAULT_PORTS = ("", "80", "443")
SECOND_LEVEL = frozenset(["ac", "co", "com", "edu", "gob", "gov", "go", "mil", "ne", "net", "nom", "or", "org", "sch"])
"""Names that registries put below two-letter country domains: co.uk is no one's domain."""
PLAIN_HOST = re.compile(r"[A-Za-z0-9.-]+")
WORD = re.compile(r"[^\W_]+")

Verdict = tuple[str, str]
"""(rule, what was met: `entry (list)` for files, `entry` for words of the recipe)."""


class Parts(NamedTuple):
    """An address without scheme, user and fragment; the host in lower case and Punycode."""

    host: str
    port: str
    path: str
    query: str


def split(url: str) -> Parts:
    """The parts of any string taken for an address; never raises. IPv6 hosts keep their brackets."""
    url = url.strip()[:LONGEST]
    scheme = SCHEME.match(url)
    rest = url[scheme.end() :] if scheme else url.removeprefix("//")
    end = NETLOC_END.search(rest)
    netloc, rest = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    netloc = netloc.rpartition("@")[2]
    if netloc.startswith("[") and "]" in netloc:
        host, _, port = netloc.partition("]")
        host, port = host + "]", port.removeprefix(":")
    else:
        host, _, port = netloc.partition(":")
    path, _, query = rest.partition("#")[0].partition("?")
    return Parts(_punycode(host.lower().strip(".")), port, path, query)


def canonical(url: str) -> str:
    """The address in the form that equal pages share: no scheme, user, default port, fragment, tracking parameter or
    trailing slash; the host in lower case."""
    host, port, path, query = split(url)
    if ";" in path:
        path = SESSION.sub("", path)
    kept = "&".join(part for part in query.split("&") if part and not TRACKING.match(part)) if query else ""
    port = "" if port in DEFAULT_PORTS else f":{port}"
    return f"{host}{port}{path.replace(chr(92), '/').rstrip('/')}{'?' + kept if kept else ''}"


def address_keys(urls: Sequence[str]) -> NDArray[np.uint64]:
    """64-bit hashes of the canonical addresses; 0 for a document without an address, which equals no other."""
    found = [canonical(url) for url in urls]
    keys = _hashes(found)
    keys[[not one for one in found]] = 0
    return keys


class AddressRules:
    """The lists of a source, loaded once in a worker: hosts and addresses as sorted hashes, words as text."""

    def __init__(self, settings: UrlRules) -> None:
        """Raises RequestError for a list that is not there; an empty one blocks nothing."""
        self.names = [""]
        """Names of the lists; number 0 is none."""
        self.hosts = self._load(settings.domains, "domains", _host)
        folders = [given for given in settings.domains if home(given).is_dir()]
        self.urls = self._load((*folders, *settings.urls), "urls", canonical)
        self.hard = frozenset(listed_words(settings.hard))
        self.soft = frozenset(listed_words(settings.soft))
        self.strict = _by_prefix("".join(WORD.findall(word)) for word in listed_words(settings.strict))

    def verdict(self, url: str) -> Verdict | None:
        """Why the address is blocked; None if it is not."""
        return self.verdicts([url])[0]

    def verdicts(self, urls: Sequence[str]) -> list[Verdict | None]:
        """The verdict on each address."""
        parts = [split(url) for url in urls]
        found: list[Verdict | None] = [None] * len(urls)
        if len(self.hosts[0]):
            names = [domains(one.host) for one in parts]
            hits = iter(self._find(self.hosts, [name for some in names for name in some]))
            for number, some in enumerate(names):
                hit = next((pair for pair in [(name, next(hits)) for name in some] if pair[1]), None)
                if hit:
                    rule = "url_host" if hit[0] == parts[number].host and len(some) > 1 else "url_domain"
                    found[number] = rule, f"{hit[0]} ({hit[1]})"
        if len(self.urls[0]):
            forms = [canonical(url) for url in urls]
            for number, (form, name) in enumerate(zip(forms, self._find(self.urls, forms), strict=True)):
                if name and not found[number]:
                    found[number] = "url_address", f"{form} ({name})"
        if self.hard or self.soft or self.strict:
            for number, one in enumerate(parts):
                found[number] = found[number] or self._by_words(one)
        return found

    def _by_words(self, parts: Parts) -> Verdict | None:
        text = f"{parts.host} {parts.path} {parts.query}"
        words = WORD.findall((unquote(text) if "%" in text else text).lower())
        for word in words:
            if word in self.hard:
                return "url_hard_word", word
        soft = [word for word in words if word in self.soft]
        if len(soft) >= 2:
            return "url_soft_words", f"{soft[0]} {soft[1]}"
        letters = "".join(words)
        table, size = self.strict
        for place in range(len(letters) - size + 1 if table else 0):
            for word in table.get(letters[place : place + size], ()):
                if letters.startswith(word, place):
                    return "url_strict_word", word
        return None

    def _load(
        self, paths: Sequence[str], layout: str, form: Callable[[str], str]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
        """Sorted hashes of the entries of all lists, and the number of the list of each."""
        hashes, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint16)]
        for given in paths:
            for name, path in _lists(given, layout):
                self.names.append(name)
                entries = (form(entry) for entry in _entries(path))
                while chunk := list(islice(entries, CHUNK)):
                    hashes.append(_hashes([entry for entry in chunk if entry]))
                    numbers.append(np.full(len(hashes[-1]), len(self.names) - 1, np.uint16))
        keys, first = np.unique(np.concatenate(hashes), return_index=True)
        return keys, np.concatenate(numbers)[first]

    def _find(self, table: tuple[NDArray[np.uint64], NDArray[np.uint16]], entries: list[str]) -> list[str]:
        """For each entry the name of the list that holds it; "" if none does."""
        keys, numbers = table
        wanted = _hashes(entries)
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return [self.names[number] for number in np.where(keys[places] == wanted, numbers[places], 0)]


def domains(host: str) -> list[str]:
    """The host and the domains above it, from the registered domain down to the host itself.

    The registered domain is the one below a public suffix; two-part suffixes are known by their usual names
    (SECOND_LEVEL). An IP address has no domain above it.
    """
    labels = host.split(".")
    if not host or host.startswith("[") or labels[-1].isdigit():
        return [host] if host else []
    suffix = 2 if len(labels) > 1 and len(labels[-1]) == 2 and labels[-2] in SECOND_LEVEL else 1
    return [".".join(labels[place:]) for place in range(max(len(labels) - suffix - 1, 0), -1, -1)]


def _host(entry: str) -> str:
    """The host that a list's entry names."""
    return entry.lower().strip(".") if PLAIN_HOST.fullmatch(entry) else split(entry.lstrip("*.")).host


def _punycode(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _lists(given: str, layout: str) -> Iterator[tuple[str, Path]]:
    """(name, file) of the lists that a setting names: a file, those of a pattern, or those named `layout` of a folder's
    categories."""
    path = home(given)
    if not path.is_dir():
        yield from ((file.name, file) for file in files_at(given, ("",), "the address rules"))
        return
    if not any(file.name.removesuffix(".gz") in ("domains", "urls") for file in path.rglob("*")):
        raise RequestError(f"the address rules: {given} holds no list named domains or urls; name the list's file")
    found = sorted(file for file in path.rglob(f"{layout}*") if file.name in (layout, f"{layout}.gz"))
    yield from ((str(file.relative_to(path).parent) if file.parent != path else layout, file) for file in found)


def _entries(path: Path) -> Iterator[str]:
    """Lines that are not empty and no comment, without what does not decode."""
    for _, line in lines(path):
        if isinstance(line, bytes) and (entry := line.strip()) and not entry.startswith(b"#"):
            yield entry.decode("utf-8", "ignore")


def listed_words(given: Iterable[str]) -> Iterator[str]:
    """Words as the recipe gives them, or those of the files it names, in lower case."""
    for one in given:
        path = home(one)
        if path.is_file():
            yield from (entry.lower() for entry in _entries(path))
        elif "/" in one or "." in one:
            raise RequestError(f"the word list {one} does not exist")
        else:
            yield one.lower()


def _by_prefix(words: Iterable[str]) -> tuple[dict[str, tuple[str, ...]], int]:
    """Words by their first letters, and how many letters those are."""
    known = list(dict.fromkeys(word for word in words if word))
    size = min([PREFIX, *map(len, known)])
    table: dict[str, tuple[str, ...]] = {}
    for word in known:
        table[word[:size]] = (*table.get(word[:size], ()), word)
    return table, size


def _hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    try:
        array = pa.array(texts, pa.large_string())
    except UnicodeEncodeError:  # halves of surrogate pairs
        array = pa.array([text.encode("utf-8", "replace").decode() for text in texts], pa.large_string())
    out = np.empty(len(array), np.uint64)
    _hash_texts(*utf8_buffer(array), out)
    return out


@numba.njit(nogil=True, cache=True)
def _hash_texts(data, offsets, out) -> None:  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        value = np.uint64(0xCBF29CE484222325)  # FNV-1a
        for place in range(offsets[i], offsets[i + 1]):
            value = (value ^ np.uint64(data[place])) * np.uint64(0x100000001B3)
        out[i] = mix(value)
