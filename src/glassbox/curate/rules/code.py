"""What the rules for code look at: the path, licence and stars of a file, its comments, data written as code."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from glassbox.curate.characters import character_tables, utf8_buffer
from glassbox.curate.rules.code_kernel import HASH, NO_COMMENTS, SLASHES, code_kernel
from glassbox.recipe.extensions import DATA_EXTENSIONS, HASH_EXTENSIONS, LISTED_EXTENSIONS, SLASH_EXTENSIONS

CODE_COLUMNS = (
    *("letters", "letters_per_piece", "comments", "encoded", "longest_encoded", "visible", "visible_characters"),
    *("xml_header", "minified", "data_extension", "unlisted_extension", "stars", "permissive"),
)
_PERMISSIVE = """
0BSD AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSD-2-Clause-Patent
BSD-3-Clause-Clear BSD-3-Clause-LBNL BSD-4-Clause BSL-1.0 BlueOak-1.0.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 ECL-2.0
EFL-2.0 FTL Fair HPND ICU IJG ISC Intel Libpng libpng-2.0 MIT MIT-0 MIT-CMU MIT-Modern-Variant MirOS
MulanPSL-2.0 NCSA NTP OLDAP-2.8 PHP-3.0 PHP-3.01 PSF-2.0 PostgreSQL Python-2.0 Ruby SMLNJ TCL UPL-1.0
Unicode-DFS-2016 Unicode-3.0 Unlicense Vim W3C WTFPL X11 Xnet ZPL-2.0 ZPL-2.1 Zend-2.0 Zlib curl
zlib-acknowledgement
"""
PERMISSIVE = frozenset(_PERMISSIVE.lower().split())
"""SPDX identifiers of licences that ask for no more than to be named (ours, after The Stack's idea of permissive)."""
MINIFIED_MEAN = 110
"""Characters of the mean line of JavaScript and CSS above which a file counts as minified."""
MINIFIED_EXTENSIONS = (".js", ".mjs", ".cjs", ".css")
XML_HEAD = 100


def fields(meta: str) -> dict[str, Any]:
    """The JSON object of a document's column `meta`; empty where there is none."""
    try:
        found = json.loads(meta) if meta else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def extension(meta: str) -> str:
    """The path's last extension with its dot, in lower case; of a file without one its name (".makefile"); else ""."""
    path = fields(meta).get("path")
    if not isinstance(path, str) or not path:
        return ""
    name = path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower()
    return "." + name.rsplit(".", 1)[-1]


def is_permissive(licence: Any) -> bool | None:
    """Whether a file may be used under permissive terms alone: an SPDX expression, or several licences that all hold.

    None if nothing is said of a licence.
    """
    if isinstance(licence, list):
        said = [is_permissive(one) if isinstance(one, str) else False for one in licence]
        return None if not said else all(one is True for one in said)
    if not isinstance(licence, str) or not licence.strip():
        return None
    terms = " ".join(licence.lower().replace("(", " ").replace(")", " ").split())
    names = [[one.split(" with ")[0] for one in part.split(" and ")] for part in terms.split(" or ")]
    return any(all(name in PERMISSIVE for name in part) for part in names)


def code_statistics(text: pa.Array, meta: Sequence[str] = ()) -> NDArray[np.float32]:
    """(documents, CODE_COLUMNS); what path, licence and stars would tell is NaN where they are not known."""
    known = [fields(one) for one in meta] or [{}] * len(text)
    endings = [extension(one) for one in meta] or [""] * len(text)
    out = np.full((len(text), len(CODE_COLUMNS)), np.nan, np.float32)
    styles = [
        HASH if one in HASH_EXTENSIONS else SLASHES if one in SLASH_EXTENSIONS else NO_COMMENTS for one in endings
    ]
    code_kernel(*utf8_buffer(text), *character_tables(), np.array(styles, np.int64), out)
    heads = pc.utf8_slice_codeunits(text, 0, XML_HEAD)
    out[:, 7] = pc.match_substring(heads, "<?xml version=").to_numpy(zero_copy_only=False)
    mean = pc.divide(pc.utf8_length(text).cast("float64"), pc.add(pc.count_substring(text, "\n"), 1).cast("float64"))
    for d, (one, ending, line) in enumerate(zip(known, endings, mean.to_pylist(), strict=True)):
        out[d, 8] = ending in MINIFIED_EXTENSIONS and (line > MINIFIED_MEAN or ".min." in str(one["path"]).lower())
        if ending:
            out[d, 9], out[d, 10] = ending in DATA_EXTENSIONS, ending not in LISTED_EXTENSIONS
        if isinstance(one.get("stars"), int | float):
            out[d, 11] = min(max(one["stars"], 0), 1e9)
        permissive = is_permissive(one.get("licence"))
        if permissive is not None:
            out[d, 12] = permissive
    return out
