"""MathML as TeX: the page's own TeX where it has some, else element by element."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.curate.html.mathml import translate, with_formulas


@pytest.mark.parametrize(
    ("mathml", "tex"),
    [
        ("<mi>x</mi><mo>=</mo><mn>1</mn>", "x=1"),
        ("<mfrac><mi>a</mi><mrow><mi>b</mi><mo>+</mo><mn>1</mn></mrow></mfrac>", r"\frac{a}{b+1}"),
        ("<msup><mi>x</mi><mn>2</mn></msup><msub><mi>α</mi><mi>i</mi></msub>", r"x^{2}\alpha_{i}"),
        ("<msup><mrow><mi>a</mi><mi>b</mi></mrow><mn>2</mn></msup>", "{ab}^{2}"),
        ("<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>", "x_{1}^{2}"),
        ("<msqrt><mi>x</mi><mo>−</mo><mn>1</mn></msqrt>", r"\sqrt{x-1}"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", r"\sqrt[3]{x}"),
        ("<munderover><mo>&#x2211;</mo><mi>i</mi><mi>n</mi></munderover><mi>i</mi>", r"\sum_{i}^{n}i"),
        ("<munder><mi>lim</mi><mi>n</mi></munder>", r"\lim_{n}"),
        ("<mover><mi>v</mi><mo>→</mo></mover><mover><mi>x</mi><mo>¯</mo></mover>", r"\vec{v}\overline{x}"),
        ("<mover><mo>=</mo><mtext>def</mtext></mover>", r"\overset{\text{def}}{=}"),
        ("<mi>sin</mi><mo>&#x2061;</mo><mi>x</mi><mo>≤</mo><mi>rate</mi>", r"\sin x\le \mathrm{rate}"),
        ("<mfenced><mi>a</mi><mi>b</mi></mfenced>", "(a, b)"),
        (
            "<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn></mtd><mtd><mn>4</mn>"
            "</mtd></mtr></mtable>",
            r"\begin{matrix} 1 & 2 \\ 3 & 4 \end{matrix}",
        ),
        ("<m:mrow><m:mi>x</m:mi></m:mrow><mphantom><mi>y</mi></mphantom>", "x"),
    ],
)
def test_elements_are_translated(mathml: str, tex: str) -> None:
    assert with_formulas(f"a <math>{mathml}</math> b") == f'a <script type="math/tex; shown">{tex}</script> b'


def test_the_pages_own_tex_goes_first() -> None:
    annotation = '<annotation encoding="application/x-tex">a &lt; b</annotation>'
    wanted = '<script type="math/tex; shown">a < b</script>'
    assert with_formulas(f"<math><semantics><mi>a</mi>{annotation}</semantics></math>") == wanted
    assert with_formulas('<math alttext="a &lt; b"><mi>a</mi></math>') == wanted
    assert with_formulas('<math alttext="{\\displaystyle a < b}"></math>') == wanted
    shown = with_formulas('<math display="block" alttext="c"></math>')
    assert shown == '<script type="math/tex; shown; mode=display">c</script>'


def test_what_is_no_formula_stays() -> None:
    for page in ("no formula", "<math>never closed", "</math> before <math", f"<math>{'x' * 200_000}</math>"):
        assert with_formulas(page) == page
    assert with_formulas("<math alttext='</script><b>x'></math>").count("</") == 1


TAGS = st.sampled_from(
    [
        "mrow",
        "mfrac",
        "msup",
        "msubsup",
        "msqrt",
        "mroot",
        "mover",
        "munder",
        "mtable",
        "mtr",
        "mtd",
        "mi",
        "mo",
        "semantics",
    ]
)


@given(st.lists(TAGS.map("<{}>".format) | TAGS.map("</{}>".format) | st.text(max_size=4), max_size=40))
def test_any_nesting_gives_balanced_braces(pieces: list[str]) -> None:
    tex = re.sub(r"\\[\\{}]", "", translate("".join(pieces)))
    depth = 0
    for letter in tex:
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0
    assert depth == 0
