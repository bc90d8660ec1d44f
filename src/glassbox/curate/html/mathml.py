"""Formulas of a page as TeX: MathML becomes the script element in which MathJax keeps TeX.

TeX that the page carries itself goes first (the annotation that KaTeX, Wikipedia and others write, or alttext); what
has none is translated element by element.
"""

import re
from html import unescape

MAX_FORMULA = 100_000
"""Characters of a math element; a longer one is left as it is."""
MAX_DEPTH = 100
OPENING = re.compile(r"<math\b", re.IGNORECASE)
CLOSING = re.compile(r"</math\s*>", re.IGNORECASE)
TOKEN = re.compile(r"<(/?)(?:\w{1,20}:)?([A-Za-z][\w-]{0,30})([^<>]{0,2000})>|([^<]+)")
ANNOTATION = re.compile(
    r"<annotation\b[^>]{0,500}encoding\s*=\s*[\"']?(?:application/x-tex|tex|latex)\b[^>]{0,500}>([^<]*)<", re.IGNORECASE
)
ALTTEXT = re.compile(r"""<math\b[^>]*\balttext\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
DISPLAY = re.compile(r"""<math\b[^>]*(?:display\s*=\s*["']?block|mode\s*=\s*["']?display)""", re.IGNORECASE)
STYLE = re.compile(r"^\{\\(?:display|text)style\s*(.*)\}$", re.DOTALL)

SIGNS = {
    "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "∓": r"\mp ", "−": "-", "∗": "*",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∼": r"\sim ", "≅": r"\cong ",
    "∝": r"\propto ", "≪": r"\ll ", "≫": r"\gg ", "→": r"\to ", "←": r"\leftarrow ", "↔": r"\leftrightarrow ",
    "⇒": r"\Rightarrow ", "⇐": r"\Leftarrow ", "⇔": r"\Leftrightarrow ", "↦": r"\mapsto ", "∞": r"\infty ",
    "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∬": r"\iint ", "∮": r"\oint ", "∂": r"\partial ", "∇": r"\nabla ",
    "∈": r"\in ", "∉": r"\notin ", "∋": r"\ni ", "⊂": r"\subset ", "⊆": r"\subseteq ", "⊃": r"\supset ",
    "⊇": r"\supseteq ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∀": r"\forall ", "∃": r"\exists ",
    "¬": r"\neg ", "∧": r"\wedge ", "∨": r"\vee ", "⊕": r"\oplus ", "⊗": r"\otimes ", "⊥": r"\perp ",
    "∥": r"\parallel ",
    "∘": r"\circ ", "°": r"^{\circ}", "′": "'", "″": "''", "…": r"\ldots ", "⋯": r"\cdots ", "⋮": r"\vdots ",
    "⋱": r"\ddots ", "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ",
    "⌉": r"\rceil ", "‖": r"\|", "∣": "|", "ℏ": r"\hbar ", "ℓ": r"\ell ", "ℜ": r"\Re ", "ℑ": r"\Im ", "ℵ": r"\aleph ",
    "ℝ": r"\mathbb{R}", "ℂ": r"\mathbb{C}", "ℕ": r"\mathbb{N}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}",
    "{": r"\{", "}": r"\}", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$", "\\": r"\backslash ",
    "\u2061": "", "\u2062": "", "\u2063": "", "\u2064": "", "\u00a0": " ", "\u200b": "",
}  # fmt: skip
LETTERS = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau
upsilon phi chi psi omega"""
GREEK = LETTERS.split()
SIGNS |= {chr(0x3B1 + k): f"\\{name} " for k, name in enumerate(GREEK)}
SIGNS |= {chr(0x391 + k): f"\\{GREEK[k].title()} " for k in (2, 3, 7, 10, 13, 15, 20, 22, 23)}
SIGNS |= {"Σ": r"\Sigma ", "Φ": r"\Phi ", "Ω": r"\Omega ", "Υ": r"\Upsilon ", "ϕ": r"\phi ", "φ": r"\varphi ",
          "ε": r"\varepsilon ", "ϵ": r"\epsilon ", "ϑ": r"\vartheta ", "ϱ": r"\varrho ", "ϖ": r"\varpi "}  # fmt: skip
NAMES = """sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp lim sup inf max min arg det
    dim gcd ker deg hom Pr liminf limsup"""
FUNCTIONS = frozenset(NAMES.split())
ACCENTS = {"¯": "overline", "‾": "overline", "_": "underline", "^": "hat", "ˆ": "hat", "~": "tilde", "˜": "tilde",
           "→": "vec", "⃗": "vec", "˙": "dot", ".": "dot", "¨": "ddot", "ˇ": "check", "⏞": "overbrace",
           "⏟": "underbrace"}  # fmt: skip
LIMITS = (r"\sum", r"\prod", r"\int", r"\iint", r"\oint", r"\lim", r"\max", r"\min", r"\sup", r"\inf", r"\bigcup",
          r"\bigcap")  # fmt: skip


def with_formulas(html: str) -> str:
    """The page with every math element as a script element of type math/tex."""
    parts, done, closing = [], 0, None
    for opening in OPENING.finditer(html):
        if opening.start() < done:
            continue
        if closing is None or closing.start() < opening.end():
            closing = CLOSING.search(html, opening.end())
        if closing is None:
            break
        if closing.end() - opening.start() > MAX_FORMULA:
            continue
        element = html[opening.start() : closing.end()]
        mode = "; mode=display" if DISPLAY.match(element) else ""
        tex = _tex(element).replace("</", "< /")
        parts.append(html[done : opening.start()])
        parts.append(f'<script type="math/tex; shown{mode}">{tex}</script>')
        done = closing.end()
    return "".join(parts) + html[done:] if parts else html


def _tex(element: str) -> str:
    """The TeX of a math element."""
    found = ANNOTATION.search(element)
    alttext = ALTTEXT.match(element)
    if found and found[1].strip():
        tex = unescape(found[1])
    elif alttext and (alttext[1] or alttext[2] or "").strip():
        tex = unescape(alttext[1] or alttext[2])
    else:
        tex = translate(element)
    tex = re.sub(r"(?<!\\)\s+", " ", tex).strip()
    style = STYLE.match(tex)
    return style[1].strip() if style else tex


def translate(element: str) -> str:
    """MathML without TeX of its own, as TeX."""
    open_tags: list[tuple[str, str]] = [("math", "")]
    parts: list[list[str]] = [[]]
    for token in TOKEN.finditer(element):
        closing, name, attributes, text = token.groups()
        if text is not None:
            if text.strip():
                parts[-1].append(_leaf(open_tags[-1][0], unescape(text).strip()))
            continue
        name = name.lower()
        if not closing:
            if attributes.endswith("/"):
                parts[-1].append(" " if name == "mspace" else "")
            elif len(open_tags) < MAX_DEPTH:
                open_tags.append((name, attributes))
                parts.append([])
            continue
        if len(open_tags) > 1 and open_tags[-1][0] == name:
            parts[-2].append(_element(*open_tags.pop(), parts.pop()))
    while len(parts) > 1:
        parts[-2].append(_element(*open_tags.pop(), parts.pop()))
    return "".join(parts[0])


def _leaf(tag: str, text: str) -> str:
    if tag.startswith("annotation"):
        return ""
    if tag in ("mtext", "ms"):
        return rf"\text{{{text}}}"
    if tag == "mi" and len(text) > 1 and text.isalpha():
        return f"\\{text} " if text in FUNCTIONS else rf"\mathrm{{{text}}}"
    if tag == "mo" and text in FUNCTIONS:
        return f"\\{text} "
    return "".join(SIGNS.get(character, character) for character in text)


def _group(tex: str) -> str:
    return f"{{{tex.strip()}}}"


def _base(tex: str) -> str:
    """What a script is put to: braces around all but one sign."""
    tex = tex.strip()
    return tex if len(tex) == 1 or re.fullmatch(r"\\[A-Za-z]+", tex) else f"{{{tex}}}"


def _element(tag: str, attributes: str, parts: list[str]) -> str:
    """An element from its translated children."""
    inner = "".join(parts)
    children = [part for part in parts if part] if tag in ("mrow", "math") else parts
    first, second, third = [*children, "", "", ""][:3]
    if tag.startswith("annotation") or tag in ("mphantom", "maligngroup", "malignmark"):
        return ""
    if tag == "semantics":
        return first
    if tag == "mfrac":
        return rf"\frac{_group(first)}{_group(second)}"
    if tag == "msqrt":
        return rf"\sqrt{_group(inner)}"
    if tag == "mroot":
        return rf"\sqrt[{second.strip()}]{_group(first)}"
    if tag == "msup":
        return second if second == r"^{\circ}" else f"{_base(first)}^{_group(second)}"
    if tag == "msub":
        return f"{_base(first)}_{_group(second)}"
    if tag in ("msubsup", "munderover"):
        return f"{_base(first)}_{_group(second)}^{_group(third)}"
    if tag in ("mover", "munder"):
        return _over(tag, first, second)
    if tag == "mtable":
        return rf"\begin{{matrix}} {inner.removesuffix(ROW_END)} \end{{matrix}}"
    if tag in ("mtr", "mlabeledtr"):
        return " & ".join(part.strip() for part in parts) + ROW_END
    if tag == "mfenced":
        return f"({', '.join(part.strip() for part in parts)})"
    return inner


ROW_END = r" \\ "


def _over(tag: str, base: str, mark: str) -> str:
    """A limit, an accent, or anything above or below something."""
    if base.strip() in LIMITS:
        return f"{base.strip()}{'_' if tag == 'munder' else '^'}{_group(mark)}"
    for sign, name in ACCENTS.items():
        if mark.strip() in (sign, SIGNS.get(sign, sign).strip()):
            name = "underline" if tag == "munder" and name == "overline" else name
            return f"\\{name}{_group(base)}"
    return rf"\{'under' if tag == 'munder' else 'over'}set{_group(mark)}{_group(base)}"
