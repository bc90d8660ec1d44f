"""File extensions that the rules for code tell apart (in lower case; a file without one goes by its name)."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


HASH_EXTENSIONS = (".py", ".pyw", ".pyi")
SLASH_EXTENSIONS = _names(
    ".java .js .jsx .mjs .cjs .ts .tsx .c .h .cc .cpp .cxx .hpp .cs .go .rs .kt .scala .swift .dart .groovy"
)
COMMENTED = (".py", ".java", ".js")
"""Languages whose share of comments SantaCoder bounds (arXiv:2301.03988, section 3)."""
HTML = (".html", ".htm", ".xhtml")
SMALL_DATA = (".json", ".yaml", ".yml")
XML_LANGUAGES = (".xsl", ".xslt")

# What follows are the outcomes of BigCode's inspection of 300 extensions for StarCoder (arXiv:2305.06161, section 3.1).
DATA_EXTENSIONS = _names(
    ".al .aux .bison .cats .cdf .cl2 .csx .dpr .frg .frx .geo .grt .ltx .nbp .pck .ph .pls .plx .rest .rktd .rktl .sexp"
    " .sig .tab .toc .vhf .vht .vrx .w .xrl .yy"
)
"""Extensions that mostly stand for data, output or other languages."""
LONG_LINES = _names(
    ".ado .bbx .bib .bsv .cbx .cmake .do .dtx .ins .json .lbx .markdown .matlab .md .mkd .mkdn .mkii .mkiv .mkvi .nb .r"
    " .rmd .ron .rst .sql .sty .tex .html .htm .xhtml .txt .xml"
)
"""Extensions without a limit on lines (the last five after StarCoder 2, arXiv:2402.19173, section 3.3)."""
FEW_LETTERS = _names(".ads .aug .bas .fp .ma .matlab .mpl .nb .prc .scm .sld .sps .sv .vhd .wl .y")
"""Extensions under which data is found by its share of letters."""
NO_ALPHANUMERIC = (".sas",)

LISTED_EXTENSIONS = _names(
    ".asm .bat .cmd .c .h .cs .cpp .hpp .c++ .h++ .cc .hh .cmake .css .dockerfile .f90 .f .f03 .f08 .f77 .f95 .for .fpp"
    " .go .hs .html .java .js .jl .lua .md .markdown .php .php3 .php4 .php5 .phps .phpt .pl .pm .pod .perl .ps1 .psd1"
    " .psm1 .py .rb .rs .sql .scala .sh .bash .command .zsh .ts .tsx .tex .vb .makefile .xml .rst .m .smali"
)
"""Extensions that RedPajama's filter of GitHub keeps."""
