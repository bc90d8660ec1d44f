"""What the page kernels know of HTML: elements, words of class names, character references, as tables of hashes.

Names are hashed with 64-bit FNV-1a of their lower-case bytes; a table is open addressing over a power of two, so that a
kernel looks a name up without making a string.
"""

from functools import cache
from html.entities import html5
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

VOID, BLOCK, SKIP, RAW = 1, 2, 4, 8
"""Kinds of element: without content, starts a line, content is no text, content is not markup."""

NAV, FOOT, SIDE, COMMENT, SHARE, RELATED, AD, META = (1 << bit for bit in range(8))
FORM, CAPTION, HIDDEN, BODY, CONTENT, CODE, GUTTER, MATH = (1 << bit for bit in range(8, 16))
DRAWN, HEADER, NOTE, ARTICLE, DRAWN_SPAN, FORUM = (1 << bit for bit in range(16, 22))
"""What an element's name, class, id, role or style says of its content (bits of a node's flags)."""

BLOCKS = """html body div p ul ol li dl dt dd table thead tbody tfoot tr td th caption pre blockquote article section
main nav header footer aside form fieldset figure figcaption h1 h2 h3 h4 h5 h6 details summary address center legend
    menu
dir listing plaintext hgroup search dialog"""
VOIDS = "br hr img input meta link wbr source area base col embed param track basefont bgsound frame"
RAWS = "script style title textarea iframe noembed noframes xmp"
SKIPS = "noscript template svg select button object video audio canvas datalist map applet"
INLINES = (
    "head a span b i em strong code tt sup sub font small big q cite kbd samp var label u s time mark math mjx-math"
)
TAGS = tuple(f"{BLOCKS} {VOIDS} {RAWS} {SKIPS} {INLINES}".split())
TAG = {name: number for number, name in enumerate(TAGS, 1)}
"""Element names as numbers from 1; 0 is any other element."""

OWN_FLAGS = {
    "nav": NAV,
    "menu": NAV,
    "footer": FOOT,
    "aside": SIDE,
    "form": FORM,
    "figcaption": CAPTION,
    "article": ARTICLE,
    "main": CONTENT,
    "header": HEADER,
    "mjx-math": DRAWN,
    "dialog": FORM,
}
WORDS: dict[int, str] = {  # one word: anywhere in a class or id; with a hyphen, or after =: the whole of a token
    NAV: """nav navbar navigation menu submenu breadcrumb breadcrumbs crumb crumbs pagination pager topbar toolbar
    mainmenu topnav subnav navi navbox skip-link skiplinks wp-pagenavi post-nav page-links prevnext pagenav nextprev
    backlink
    navigation-links toctoggle jumplinks""",
    FOOT: "footer foot copyright colophon legal imprint impressum disclaimer bottombar",
    SIDE: """sidebar aside rail widget widgets rightbar leftbar sidebars rightrail leftrail rightcolumn leftcolumn
    side-bar side-column right-column left-column right-rail right-col rightcol complementary infobox marginalia""",
    COMMENT: """comment comments disqus reply replies respond commentlist talkback livefyre kommentare kommentar
    commentaires comentarios commenting comment-list commentarea fb-comments forum-link reader-comments userreviews""",
    SHARE: """share sharing social socials sharedaddy addthis sharebar sharebuttons shareaholic socialshare sharethis
    addtoany twitter-share-button fb-like likes follow following sociallinks share-buttons ssba shariff a2a
    socialmedia share-tools sharetools sharebox social-share jp-post-flair bookmarks heateor post-sharing essb
    article-tools articletools story-tools print-link email-link print-only noprint no-print action-links""",
    RELATED: """related recommended recommendations recommend trending popular mostread teaser teasers recirc outbrain
    taboola zergnet readmore morefrom similar suggested mostpopular relatedposts relatedlinks read-more more-from
    also-read see-also read-next readnext more-stories top-stories topstories latest-news latestnews jp-relatedposts
    yarpp upnext up-next read-also next-article recent-posts newsfeed headlines most-read related-links mehr-zum-thema
    inline-related morestories promoted crp_related relatedcontent more-on-this carousel slideshow moreon""",
    AD: """ad ads advert adverts advertisement advertisements advertising adsense adsbygoogle adslot ad-slot adbox
    sponsor sponsored sponsors promo promos promotion promobox dfp adunit ad-unit ad-container adwrapper commercial
    anzeige werbung publicidad reklama banner banners affiliate merch shop""",
    META: """byline author authors bio metadata postmeta dateline timestamp published pubdate authorbox tags taglist
    tag-list post-tags entry-meta post-meta article-meta author-box author-bio author-info about-author cat-links
    tags-links post-date entry-date article-date publish-date date-published articlemeta post-info postinfo
    entry-utility entry-footer post-footer article-footer postmetadata categories post-categories reading-time
    readtime story-meta article-info byline-wrapper article-topics topics keywords labels contributor contributors
    post-author entry-author meta-info blog-post-meta last-updated lastmod credits article-details views-count
    authorname author-name articledate signature""",
    FORM: """newsletter subscribe subscription signup sign-up login log-in register registration paywall modal popup
    overlay cookie cookies consent gdpr lightbox optin opt-in newslettersignup nl-signup cta donate donation
    mc_embed_signup search searchform search-form rating ratings vote votes upvote
    downvote voting poll survey tooltip feedback alert
    cookie-notice cookie-banner call-to-action notification noscript-warning toast""",
    CAPTION: """caption captions wp-caption-text figcaption image-caption img-caption photo-credit photocredit credit
    imagecaption photo-caption media-caption image-credit picture-caption copyright-info gallery-caption""",
    HIDDEN: """=hidden visually-hidden visuallyhidden sr-only screen-reader-text screen-reader screenreader offscreen
    element-invisible assistive-text clip-text a11y-hidden d-none =hide""",
    BODY: """articlebody article-body entry-content post-content post-body article-content story-body storybody
    article-text articletext postcontent post-text body-text bodytext article__body article__content article-body-text
    story-content storycontent content-body text-content post-entry postentry body-copy bodycopy articlecontent
    single-content news-content newstext news-text entrytext td-post-content article-copy page-content
    articlebodycontent story-text rich-text richtext field-name-body mw-parser-output markdown-body blog-content
    article-main post__content post-bodycopy entry__content theme-content main-text main-content-body
    article-entry post-container-body article__text content__article-body c-article-body article-wrap-content
    wysiwyg bbwrapper message-body message-content js-post-body s-prose cooked postbody bbp-reply-content""",
    FORUM: """forum forums thread topic-post bbpress phpbb vbulletin question-page qa-main discourse xenforo viewtopic
    showthread""",
    CONTENT: "article content post entry story body text main page blog hentry artikel beitrag column maincontent",
    CODE: """syntaxhighlighter js-file-line-container blob-wrapper crayon-main crayon-table hljs-ln dp-highlighter""",
    GUTTER: """=gutter line-number line-numbers =linenumber =linenumbers =linenos =lineno =linenodiv
    blob-num crayon-nums line-numbers-rows hljs-ln-numbers =lnt =lnr rouge-gutter
    react-syntax-highlighter-line-number code-line-number
    copy-button =copybtn =headerlink anchorjs-link header-anchor mw-editsection edit-section =permalink =copycode""",
    MATH: """latex tex mathtex math mwe-math-fallback-image-inline mwe-math-fallback-image-display equation mathimage
    ql-img-inline-formula ql-img-displayed-equation""",
    DRAWN_SPAN: "=mathjax",
    DRAWN: """katex-html mathjax_display mathjax_preview mathjax_svg mathjax_chtml mathjax_svg_display mjx-chtml
    mathjax-error mjx_assistive_mathml katex-error""",
    NOTE: """footnote footnotes references reflist endnotes footnoteslist""",
}
ROLES = {
    "navigation": NAV,
    "menu": NAV,
    "menubar": NAV,
    "contentinfo": FOOT,
    "complementary": SIDE,
    "search": FORM,
    "dialog": FORM,
    "alertdialog": FORM,
    "banner": HEADER,
    "main": CONTENT,
    "article": ARTICLE,
}
ATTRIBUTES = {"class": 1, "id": 1, "role": 2, "style": 3, "hidden": 4, "itemprop": 5, "type": 6, "alt": 7, "src": 8}
"""Attributes that are read: as words, as a role, as a style, ..."""


class Table(NamedTuple):
    """Hashes (0: free) and their values; the length is a power of two."""

    keys: NDArray[np.uint64]
    values: NDArray[np.int64]


class Markup(NamedTuple):
    """All tables that the page kernel looks names up in."""

    tags: Table
    kinds: NDArray[np.uint8]
    flags: NDArray[np.int64]
    attributes: Table
    words: Table
    roles: Table
    references: Table


def name_hash(name: str) -> int:
    """64-bit FNV-1a of the UTF-8 bytes."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


@numba.njit(nogil=True, cache=True, inline="always")
def look_up(keys: NDArray[np.uint64], values: NDArray[np.int64], key: np.uint64) -> int:
    """The value stored for a hash, or 0."""
    mask = np.uint64(len(keys) - 1)
    slot = (key ^ (key >> np.uint64(32))) & mask
    while keys[slot] != 0:
        if keys[slot] == key:
            return values[slot]
        slot = (slot + np.uint64(1)) & mask
    return 0


@cache
def markup() -> Markup:
    """The tables, built once a process."""
    kinds, flags = np.zeros(len(TAGS) + 1, np.uint8), np.zeros(len(TAGS) + 1, np.int64)
    for names, kind in ((BLOCKS, BLOCK), (VOIDS, VOID), (RAWS, RAW | SKIP), (SKIPS, SKIP)):
        for name in names.split():
            kinds[TAG[name]] = kind
    for name, flag in OWN_FLAGS.items():
        flags[TAG[name]] = flag
    words: dict[str, int] = {}
    for flag, names in WORDS.items():
        for name in names.replace("_", "-").split():
            token = name if name.startswith("=") else f"={name}"
            words[token] = words.get(token, 0) | flag
            if name.isalpha():
                words[name] = words.get(name, 0) | flag
    return Markup(
        table(TAG),
        kinds,
        flags,
        table(ATTRIBUTES),
        table(words),
        table(ROLES),
        table({name: _points(text) for name, text in html5.items()}),
    )


def _points(text: str) -> int:
    """One or two code points in a number."""
    return ord(text[0]) | (ord(text[1]) << 32 if len(text) > 1 else 0)


def table(entries: dict[str, int]) -> Table:
    size = 1 << (4 * len(entries)).bit_length()
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for name, value in entries.items():
        key = name_hash(name)
        slot = (key ^ key >> 32) & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot], values[slot] = key, value
    return Table(keys, values)
