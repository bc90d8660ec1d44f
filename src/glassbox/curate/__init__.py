"""Curation: raw pages, text and code in, clean, deduplicated, decontaminated documents out (docs/curation.md).

`crawl.py` records a site into WARC files; `stage.py` is the whole of curation, step by step. In the order of the flow:
`readers.py` and `warc.py` a source's documents, `extract.py` text, `lines.py` line rules, `language.py`,
`statistics.py` and `rules.py` document rules, `duplicates.py`, `contamination.py`; `flow.py` is the Daft dataflow they
run in. Which files a source names is in `recipe/files.py`.
"""
