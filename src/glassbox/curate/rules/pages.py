"""What the rules of dots.llm1 look at beside the text's statistics: prompts, pages of differences, titles, addresses.

The report (arXiv:2506.05767, app. C.2) names these families and prints neither lists nor thresholds; both are ours.
"""

import re
from collections.abc import Sequence

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import ALPHANUMERIC, UNSPACED, character_tables, decode, longest, utf8_buffer
from glassbox.curate.rules.code import fields
from glassbox.curate.rules.line_kernel import is_prompt, line_bounds
from glassbox.curate.rules.phrases import phrases, starts_with

PAGE_COLUMNS = ("prompt_lines", "difference_lines", "unwanted_title", "unwanted_address")

TITLES = re.compile(
    r"(?i)(?:(?:error|http)? ?(?:40[0134]|50[0234])\b|page not found|not found|access denied|forbidden"
    r"|(?:log|sign) ?(?:in|up)\b|register\b|create (?:an )?account|forgot(?:ten)? (?:your )?password|index of /"
    r"|search results|shopping cart|checkout\b|untitled\b|just a moment|attention required|difference between revisions"
    r"|页面不存在|找不到|访问出错|登录|注册|用户登录|会员登录|搜索结果|购物车|版本差异)"
)
"""Starts of the titles of pages that hold no article: errors, logins, searches, shops, revisions."""
ADDRESSES = re.compile(
    r"(?i)[/?&](?:login|signin|sign-in|signup|sign-up|register|logout|password|cart|checkout|wp-login\.php|search)"
    r"(?:[/?&=.#]|$)|[?&](?:action=(?:edit|history|raw|login)|diff=|oldid=|do=(?:diff|revisions|edit|login))"
    r"|/(?:commit|compare|blame)/|Special:|%E7%89%B9%E6%AE%8A:"
)
"""Parts of the addresses of such pages. Both patterns are alternatives of fixed texts, so they take linear time."""
LONGEST_ADDRESS = 2000
_DIFFERENCES = phrases(
    (
        *("@@ -", "diff --git ", "--- a/", "+++ b/", "index: ", "revision as of", "latest revision as of"),
        *("← older edit", "newer edit →", "← previous revision", "next revision →", "view history", "(diff)"),
        *("修订版本", "←上一版本", "下一版本→", "←较早版本", "较新版本→", "查看历史"),
    )
)


def page_statistics(text: pa.Array, meta: Sequence[str] = (), urls: Sequence[str] = ()) -> NDArray[np.float32]:
    """(documents, PAGE_COLUMNS): shares of lines that are prompts and that mark differences; 1 for a title or an
    address of a page without an article, NaN where there is none."""
    out = np.full((len(text), len(PAGE_COLUMNS)), np.nan, np.float32)
    _lines(*utf8_buffer(text), *character_tables(), out)
    for d, one in enumerate(meta):
        title = fields(one).get("title")
        if isinstance(title, str) and title:
            out[d, 2] = TITLES.match(title.strip()[:LONGEST_ADDRESS]) is not None
    for d, address in enumerate(urls):
        if address:
            out[d, 3] = ADDRESSES.search(address[:LONGEST_ADDRESS]) is not None
    return out


def holds_bad_word(text: pa.Array, words: tuple[str, ...]) -> NDArray[np.float32]:
    """(documents,) 1 where one of the words or phrases stands in the text, else 0 (arXiv:1910.10683, section 2.2).

    Case is set aside. An entry counts where no letter or digit stands before or after it; one that begins or ends in a
    script without spaces between words counts there in any company.
    """
    entries = tuple(dict.fromkeys(word.strip().lower() for word in words if len(word.strip()) > 1))
    out = np.zeros(len(text), np.float32)
    if entries:
        _entries(*utf8_buffer(text), *character_tables(), phrases(tuple(sorted(entries, key=len))), out)
    return out


@numba.njit(nogil=True, cache=True)
def _entries(data, offsets, kinds, lower, entries, out) -> None:  # type: ignore[no-untyped-def]
    p = np.empty(longest(offsets), np.int32)
    for d in range(len(out)):
        n = decode(data, offsets[d], offsets[d + 1], p)
        out[d] = _holds_entry(p, n, kinds, lower, entries)


@numba.njit(nogil=True, cache=True)
def _holds_entry(p, n, kinds, lower, entries) -> bool:  # type: ignore[no-untyped-def]
    points, bounds, pairs = entries
    for i in range(n - 1):
        if not pairs[(lower[p[i]] & 63) << 6 | lower[p[i + 1]] & 63]:
            continue
        if i and kinds[p[i - 1]] & ALPHANUMERIC and not kinds[p[i]] & UNSPACED:
            continue
        for k in range(len(bounds) - 1):
            end = starts_with(p, i, n, lower, (points, bounds[k : k + 2], pairs))
            if end >= 0 and (end == n or not kinds[p[end]] & ALPHANUMERIC or kinds[p[end - 1]] & UNSPACED):
                return True
    return False


@numba.njit(nogil=True, cache=True)
def _lines(data, offsets, kinds, lower, out) -> None:  # type: ignore[no-untyped-def]
    p = np.empty(longest(offsets), np.int32)
    for d in range(len(out)):
        n = decode(data, offsets[d], offsets[d + 1], p)
        count = prompts = differences = at = 0
        while at <= n:
            end, first, last = line_bounds(p, at, n, kinds)
            if first < last:
                count += 1
                prompts += is_prompt(p, first, last, kinds, lower)
                differences += starts_with(p, first, last, lower, _DIFFERENCES) >= 0
            at = end + 1
        out[d, 0], out[d, 1] = prompts / max(count, 1), differences / max(count, 1)
