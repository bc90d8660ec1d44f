"""How good a model is: every score with its protocol and its interval.

In: models, held-out problems, held-out tokens. Out: `scores.json`, `samples.jsonl`, `needle.json`.
`stage.py` the stage evaluate: exact match and bits per byte, baselines beside them · `needle.py` needles in
haystacks · `intervals.py` the intervals.
"""
