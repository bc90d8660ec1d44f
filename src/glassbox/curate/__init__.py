"""Curation: raw pages, text and code in, clean, deduplicated, decontaminated documents out (docs/curation.md).

`crawl.py` records a site into WARC files; `stage.py` is the whole of curation, step by step. In the order of the flow:
`files.py` what a source names, `readers.py` and `warc.py` its documents, `extract.py` text, `lines.py` line rules,
`language.py`, `statistics.py` and `rules.py` document rules, `duplicates.py`, `contamination.py`; `flow.py` is the
Daft dataflow they run in.
"""
