"""The run's page: `report.html`, one file that opens from disk without a network.

In: a run folder, and nothing but its artefacts. Out: `write_report(run)` in `page.py` writes `report.html`.
A file a section turns artefacts into plain data: `overview.py`, `corpus.py`, `tokens.py`, `training.py`, `scores.py`
with `conversations.py`; `artefacts.py` reads files that may be missing or torn; `charts.py` and `graph.py` draw SVG;
`format.py` writes numbers; `template.html` and `style.css` are the page.
"""
