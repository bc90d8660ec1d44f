"""The phrases that line rules look for, and how kernels find them: in lower case, at code points, in linear time."""

import numba
import numpy as np
from numpy.typing import NDArray

POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
COUNTED = (
    *("likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes"),
    *("downloads", "views", "followers"),
)
NOTES = ("edit]", "citation needed]")
PROMPTS = (
    *("sign up", "sign in", "log in", "login", "register now", "register for", "create an account", "free account"),
    *("subscribe", "newsletter", "enter your email", "your email address", "forgot your password", "already a member"),
    *("start your free trial", "download the app", "download our app", "get the app", "buy now", "shop now"),
    *("add to cart", "advertisement", "sponsored", "click here", "follow us on", "share this", "limited time offer"),
    *("登录", "登陆", "注册", "立即下载", "下载app", "点击下载", "扫码", "二维码", "关注公众号", "公众号", "加微信"),
    *("广告", "立即购买", "加入购物车", "订阅", "免费试用", "客服热线", "点击这里", "点击查看", "分享到", "返回顶部"),
)
"""Advertisement and registration prompts, lower-cased (ours; dots.llm1 names the family but prints no list)."""


def phrases(words: tuple[str, ...]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Code points of all phrases on end, where each one starts, and which pairs of low bits begin one (`contains`)."""
    bounds = np.cumsum([0, *map(len, words)])
    pairs = np.zeros(4096, np.bool_)
    pairs[[(ord(word[0]) & 63) << 6 | ord(word[1]) & 63 for word in words]] = True
    return np.array([ord(c) for word in words for c in word], np.int32), bounds.astype(np.int64), pairs


JAVASCRIPT, POLICY, COUNTS, NOTE, CART, PROMPT_WORD, READ_MORE, SIGN_IN = map(
    phrases, (("javascript",), POLICIES, COUNTED, NOTES, ("items in cart",), PROMPTS, ("read more",), ("sign-in",))
)


@numba.njit(nogil=True, cache=True)
def starts_with(p, i, end, lower, phrases) -> int:  # type: ignore[no-untyped-def]
    """Where the first of the lower-case phrases that stands at `p[i]` ends; -1 if none does."""
    points, bounds, _ = phrases
    for k in range(len(bounds) - 1):
        first, last = bounds[k], bounds[k + 1]
        if i + last - first > end:
            continue
        j = first
        while j < last and lower[p[i + j - first]] == points[j]:
            j += 1
        if j == last:
            return i + last - first
    return -1


@numba.njit(nogil=True, cache=True)
def contains(p, start, end, lower, phrases) -> bool:  # type: ignore[no-untyped-def]
    """Whether one of the lower-case phrases, of two characters at least, stands in `p[start:end]`."""
    pairs = phrases[2]
    pair = 0
    for i in range(start, end):
        pair = (pair << 6 | lower[p[i]] & 63) & 4095
        if pairs[pair] and i > start and starts_with(p, i - 1, end, lower, phrases) >= 0:
            return True
    return False
