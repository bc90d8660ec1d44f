"""Curation: raw pages, text and code in; clean, deduplicated, decontaminated, balanced documents out.

`stage.py` is the whole; its passes are `ingest.py`, `assess.py`, `together.py` and `outputs.py`, done part by part
(`parts.py`) by workers (`flow.py`) in a folder of their own (`staging.py`). What they call: `reading/` stored bytes,
`html/` web pages, `rules/` statistics and rules, `models/` classifiers, `repeats/` copies and evaluation problems.
`crawl.py` records a site; `explain.py` and `sheet.py` show what was decided. docs/curation.md tells it at length.
"""
