"""Places in the arrays that the page kernels share: lines, nodes, the stack of open elements, the state."""

from glassbox.curate.html import markup as m

START, END, NODE, KIND, LEVEL, LINKED, CHARS, ROW, CELL, BREAK, LINKS = range(11)
"""Columns of a line: bytes of the text, node, kind, level (of a heading; of a list, plus 100 x number for numbered
items; 1 for text in a paragraph element), characters in links, characters (both without blanks, as bytes that are no
UTF-8 continuation), table row and cell (-1: none), break before it (0 paragraph, 1 <br>, 2 several), links."""
PARENT, ELEMENT, FLAGS, FIRST = range(4)
"""Columns of a node: parent (-1: the root), tag number, flags, first line at or after its start."""
PLAIN, HEADING, ITEM, CELLS, PRE = range(5)
"""Kinds of line."""
MAX_DEPTH = 256
"""Open elements; what is nested deeper stands in the deepest."""
MAX_NODES = MAX_LINES = 1_000_000
SCOPE = 64
"""Open elements that an implied end looks through."""

STACK_TAG, STACK_NODE, STACK_ROW, STACK_CELL, STACK_COUNT, STACK_LINE = range(6)
"""Columns of an open element: tag, node, table row, cell, items so far, first line at its start."""
OUT, LINE_START, SPACE, LINES, NODES, DEPTH, SKIP, PRE_DEPTH, SOFT, LINK = range(10)
LINK_DEPTH, LINKED_NOW, CHARS_NOW, BREAK_NOW, ITEM_NOW, ROWS, CELL_SERIAL, LINKS_NOW, MATHS_NOW, UNSEEN = range(10, 20)
STATE = 20
"""The state, int64: bytes written, where the line began, whether a blank is due, lines, nodes, open elements, depth at
which skipping began (-1: not), depth of the code block (-1: none), whether markup in it is indented itself, whether in
a link, its depth; of the line at hand: characters in links, characters, break before it, number of the item it begins
(-1: none); rows, cells; links of the line; whether it ends in a formula; whether what is skipped is only hidden."""
FLAG, TEX, ALT, ALT_END, CLOSED = range(5)
"""What is read of a start tag: flags, kind of formula (1 inline, 2 display, 4 to be shown even where hidden), bytes of
the alt text, whether it closes itself."""


def tags(names: str) -> tuple[int, ...]:
    """The numbers of some elements."""
    return tuple(m.TAG[name] for name in names.split())
