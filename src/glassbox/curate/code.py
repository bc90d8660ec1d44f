"""What the rules for code look at beside the text itself: the file's path, its comments, data written as code."""

import json
from typing import Any


def fields(meta: str) -> dict[str, Any]:
    """The JSON object of a document's column `meta`; empty where there is none."""
    try:
        found = json.loads(meta) if meta else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def extension(meta: str) -> str:
    """The path's last extension with its dot, in lower case; of a file without one its name (".makefile"); else ""."""
    path = fields(meta).get("path")
    if not isinstance(path, str) or not path:
        return ""
    name = path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower()
    return "." + name.rsplit(".", 1)[-1]


CODE_COLUMNS = ()


def code_statistics(text, meta=()):
    import numpy as np

    return np.zeros((len(text), 0), np.float32)
