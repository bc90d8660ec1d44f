"""Rules on addresses: the documented order, lists of hosts as they come, and one canonical form of an address."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.reading.addresses import AddressRules, address_keys, canonical, domains, split
from glassbox.errors import RequestError
from glassbox.recipe.sources import UrlRules


def rules(tmp_path: Path, **lists: str) -> AddressRules:
    for name, text in lists.items():
        (tmp_path / f"{name}.list").write_text(text)
    return AddressRules(UrlRules(**{name: str(tmp_path / f"{name}.list") for name in lists}))


def test_the_first_of_the_documented_tests_decides(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        domains="bad.com\nsub.shared.net\n",
        urls="http://ok.org/page/\n",
        hard="casino\n",
        soft="hot\ngirls\nfree\n",
        strict="pornhub\n",
    )
    expected = {
        "https://www.bad.com/casino": ("url_domain", "bad.com (domains.list)"),
        "https://bad.com": ("url_domain", "bad.com (domains.list)"),
        "http://sub.shared.net/x": ("url_host", "sub.shared.net (domains.list)"),
        "http://deep.sub.shared.net/x": ("url_domain", "sub.shared.net (domains.list)"),
        "http://shared.net/": None,
        "http://notbad.com/": None,
        "https://ok.org/page": ("url_address", "ok.org/page (urls.list)"),
        "https://ok.org/page/2": None,
        "https://ok.org/the-Casino-night": ("url_hard_word", "casino"),
        "https://ok.org/casinos": None,
        "https://ok.org/hot-summer": None,
        "https://ok.org/hot/GIRLS": ("url_soft_words", "hot girls"),
        "https://ok.org/my.porn-hub.html": ("url_strict_word", "pornhub"),
        "https://ok.org/%70orn_hub": ("url_strict_word", "pornhub"),
        "": None,
    }
    assert dict(zip(expected, found.verdicts(list(expected)), strict=True)) == expected
    assert {url: found.verdict(url) for url in expected} == expected


def test_words_may_stand_in_the_recipe_itself() -> None:
    found = AddressRules(UrlRules(hard=("sex", "赌场"), strict=("xxx", "xx-rated")))
    assert found.verdict("http://a.b/sex") == ("url_hard_word", "sex")
    assert found.verdict("http://a.b/%E8%B5%8C%E5%9C%BA") == ("url_hard_word", "赌场")
    assert found.verdict("http://a.b/x-x-r.a.t.e.d") == ("url_strict_word", "xxrated")
    assert found.verdict("http://essex.ac.uk/x") is None


def test_a_folder_in_the_layout_of_ut1_is_read_whole(tmp_path: Path) -> None:
    for category in ("adult", "gambling"):
        (tmp_path / category).mkdir()
        (tmp_path / category / "domains").write_text(f"# {category}\n{category}.com\n192.0.2.7\n\n")
    (tmp_path / "adult" / "urls").write_text("shared.net/~someone/\n")
    (tmp_path / "gambling" / "urls.gz").write_bytes(gzip.compress(b"shared.net/bets\n"))
    (tmp_path / "adult" / "usage").write_text("black\n")
    found = AddressRules(UrlRules(domains=str(tmp_path)))
    urls = ["http://adult.com", "http://x.gambling.com", "http://192.0.2.7:8080/", "http://shared.net/~someone"]
    assert [verdict[1] for verdict in found.verdicts([*urls, "https://shared.net/bets/"])] == [
        "adult.com (adult)",
        "gambling.com (gambling)",
        "192.0.2.7 (adult)",
        "shared.net/~someone (adult)",
        "shared.net/bets (gambling)",
    ]


def test_a_public_suffix_blocks_nothing_below_it(tmp_path: Path) -> None:
    found = rules(tmp_path, domains="com\nco.uk\n*.Wild.ORG.\nхост.рф\n[2001:db8::1]\n")
    urls = ["http://a.com/", "http://b.co.uk", "http://sub.wild.org", "http://x.хост.рф/", "http://[2001:DB8::1]:80/"]
    assert [bool(verdict) for verdict in found.verdicts(urls)] == [False, False, True, True, True]


def test_a_pattern_names_several_lists(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"{name}.com\n")
    found = AddressRules(UrlRules(domains=str(tmp_path / "*.txt")))
    assert found.verdicts(["http://one.com", "http://two.com"]) == [
        ("url_domain", "one.com (one.txt)"),
        ("url_domain", "two.com (two.txt)"),
    ]


def test_lists_that_are_missing_are_refused(tmp_path: Path) -> None:
    for settings_ in (UrlRules(domains="/none/list"), UrlRules(urls="/none"), UrlRules(strict="words/none.txt")):
        with pytest.raises(RequestError, match="does not exist"):
            AddressRules(settings_)
    with pytest.raises(RequestError, match="holds no list"):
        AddressRules(UrlRules(domains=str(tmp_path)))


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("a.b.example.com", ["example.com", "b.example.com", "a.b.example.com"]),
        ("www.news.co.uk", ["news.co.uk", "www.news.co.uk"]),
        ("co.uk", ["co.uk"]),
        ("10.0.0.1", ["10.0.0.1"]),
        ("[::1]", ["[::1]"]),
        ("localhost", ["localhost"]),
        ("", []),
    ],
)
def test_domains_of_a_host(host: str, names: list[str]) -> None:
    assert domains(host) == names


@pytest.mark.parametrize(
    "same",
    [
        ("http://Example.com/a/", "https://example.com:443/a#part", "//user:pw@example.com/a", "example.com/a?"),
        ("http://a.b/?utm_source=x&id=1&fbclid=9", "a.b?id=1"),
        ("http://a.b/p;jsessionid=AB12?q=1", "http://a.b/p?q=1"),
        ("http://münchen.de/", "xn--mnchen-3ya.de"),
        ("http://a.b\\c", "http://a.b/c"),
    ],
)
def test_equal_addresses_have_one_form(same: tuple[str, ...]) -> None:
    assert len({canonical(url) for url in same}) == 1
    assert len(set(address_keys(same).tolist())) == 1


@pytest.mark.parametrize("pair", [("a.b/x", "a.b/X"), ("a.b:81/", "a.b"), ("a.b?id=1", "a.b?id=2"), ("a.b", "www.a.b")])
def test_different_addresses_have_different_forms(pair: tuple[str, str]) -> None:
    assert canonical(pair[0]) != canonical(pair[1])


def test_documents_without_an_address_have_key_zero() -> None:
    keys = address_keys(["", "http://", "http://a.b", " "])
    assert keys.dtype == np.uint64
    assert (keys == 0).tolist() == [True, True, False, True]


@settings(deadline=None)
@given(
    st.lists(
        st.text(alphabet=st.characters(), max_size=40) | st.from_regex(r"(https?:)?//[a-z.:@\[\]?#%/\\]*"), max_size=5
    )
)
def test_any_text_has_a_form_and_a_verdict(urls: list[str]) -> None:
    found = AddressRules(UrlRules(hard="x", strict=("ab", "zz"), soft=("a", "b")))
    assert found.verdicts(urls) == [found.verdict(url) for url in urls]
    for url in urls:
        assert canonical(canonical(url)) == canonical(url) or "@" in url or "//" in url or ":" in url
        assert split(url).host == split(url).host.strip(".")


@settings(deadline=None)
@given(st.text("abc-. /", max_size=30), st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=6))
def test_strict_words_are_found_as_a_plain_search_finds_them(path: str, words: list[str]) -> None:
    letters = "".join(letter for letter in f"h{path.strip()}" if letter.isalnum())
    verdict = AddressRules(UrlRules(strict=tuple(words))).verdict(f"http://h/{path}")
    assert (verdict is not None) == any(word in letters for word in words)
