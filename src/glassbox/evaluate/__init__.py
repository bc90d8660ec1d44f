"""How good a model is: every score with its protocol and its interval.

In: models, held-out problems, held-out tokens. Out: `scores.json` and `samples.jsonl`.
`stage.py` the stage evaluate: exact match and bits per byte, baselines beside them · `intervals.py` the intervals.
"""
