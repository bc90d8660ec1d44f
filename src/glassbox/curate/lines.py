"""Rules for single lines: clutter that is cut out of a document while the rest of it stays."""

import hashlib
import re
from collections.abc import Callable

Cut = Callable[[str], bool]
"""Whether a stripped, non-empty line goes."""

LONGEST_WORD = 1000
FEWEST_WORDS = 3
REPEATED_SPAN = 3
POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
BLANK_LINES = re.compile(r"\n\s*\n(?:\s*\n)+")
COUNTER = re.compile(
    r"\W*\d(?:,|\.|\d)*(?:K|M|B)?\s+(?:likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes"
    r"|downloads|views|followers)\W*",
    re.IGNORECASE,
)


def _upper_case(line: str) -> bool:
    return sum(map(str.isupper, line)) > 0.5 * len(line)


CUTS: dict[str, Cut] = {
    # arXiv:1910.10683, section 2.2, with the word count of its replicas in Dolma and datatrove.
    "long_word": lambda line: any(len(word) > LONGEST_WORD for word in line.split()),
    "javascript": lambda line: "javascript" in line.lower(),
    "policy": lambda line: any(phrase in line.lower() for phrase in POLICIES),
    "terminal": lambda line: not line.endswith((".", "!", "?", '"', "'")) or line.endswith("..."),
    "few_words": lambda line: len(line.split()) < FEWEST_WORDS,
    # arXiv:2306.01116, appendix G.
    "upper_case": _upper_case,
    "digits": str.isdigit,
    "counter": lambda line: COUNTER.fullmatch(line) is not None,
    # Ours: a line that is nothing but a file's path or an address.
    "bare_path": lambda line: len(line.split()) == 1 and ("/" in line or "\\" in line),
}
"""Line rule -> its test, under the names of `recipe.rules.LINE_RULES`."""


def cut_lines(text: str, rules: tuple[str, ...]) -> tuple[str, list[int]]:
    """The text without the lines that a rule cuts, and how many each rule cut (the first to ask wins)."""
    counts = [0] * len(rules)
    if "repeated" in rules:
        text, counts[rules.index("repeated")] = cut_repeats(text)
        if len(rules) == 1:
            return text, counts
    rules = tuple(rule if rule in CUTS else "" for rule in rules)
    kept = []
    for line in text.split("\n"):
        stripped = line.strip()
        hit = next((i for i, rule in enumerate(rules) if rule and CUTS[rule](stripped)), None) if stripped else None
        if hit is None:
            kept.append(line)
        else:
            counts[hit] += 1
    return "\n".join(kept).strip("\n"), counts


def cut_repeats(text: str) -> tuple[str, int]:
    """The text without lines of any span of three non-empty lines that stood in it before, and how many were cut.

    C4 keeps one copy of each three-sentence span of its corpus (arXiv:1910.10683, section 2.2); this does it for lines
    and within a document, such as a reference page that describes inherited methods under each class.
    """
    lines = text.split("\n")
    filled = [i for i, line in enumerate(lines) if line.strip()]
    keys = [lines[i].strip() for i in filled]
    seen: set[tuple[str, ...]] = set()
    cut: set[int] = set()
    for k in range(len(keys) - REPEATED_SPAN + 1):
        span = tuple(keys[k : k + REPEATED_SPAN])
        if span in seen:
            cut.update(filled[k : k + REPEATED_SPAN])
        seen.add(span)
    kept = "\n".join(line for i, line in enumerate(lines) if i not in cut)
    return BLANK_LINES.sub("\n\n", kept).strip("\n"), len(cut)


def edge_hashes(text: str, width: int) -> list[int]:
    """64-bit hashes of the distinct lines among the first and the last `width` that are neither empty nor all symbols.

    Shared head and foot lines, after the line deduplication between documents of dots.llm1 (arXiv:2506.05767, app. C).
    """
    lines = text.split("\n")
    return sorted({_hash(lines[i].strip()) for i in _edges(lines, width)})


def cut_edges(text: str, width: int, common: frozenset[int]) -> tuple[str, int]:
    """The text without those of its edge lines whose hash is in `common`, and how many were cut."""
    lines = text.split("\n")
    cut = {i for i in _edges(lines, width) if _hash(lines[i].strip()) in common}
    return "\n".join(line for i, line in enumerate(lines) if i not in cut).strip("\n"), len(cut)


def _edges(lines: list[str], width: int) -> list[int]:
    filled = [i for i, line in enumerate(lines) if any(map(str.isalnum, line))]
    return filled if len(filled) <= 2 * width else filled[:width] + filled[-width:]


def _hash(line: str) -> int:
    return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")
