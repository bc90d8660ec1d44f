"""What happened: run folders that resume exactly, and the proof that nothing in them has changed.

In: a recipe and the table of stage functions. Out: `runs/<name>/<stage>/` with manifests, and `ledger.jsonl`.
`runner.py` carries a recipe out · `run.py` states, verification, pruning · `hashing.py` hashes and manifests ·
`record.py` the chained records · `workspace.py` what a stage is given · `writing.py` crash-safe files.
"""
