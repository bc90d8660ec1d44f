"""What a step cuts out of a text: kept beside the document, so that nothing is removed unseen."""

from typing import NamedTuple

import pyarrow as pa


class Cut(NamedTuple):
    """A line, or a part of one, that a step removed."""

    line: int
    """How many lines that are not blank stand before it in the text that the step was given."""
    column: int
    """Where in the line (characters) the part was; -1 if the whole line is gone."""
    rule: str
    """Which rule removed it."""
    text: str
    """What was removed."""


Edited = tuple[pa.Array, list[list[Cut]]]
"""A batch of texts (large_string, no nulls) after a step, and what the step cut from each, in order of place."""
