"""How good a model is: every score with its protocol and its interval.

In: models, held-out problems, held-out tokens, rows of public sets. Out: `scores.json` and `samples.jsonl`; from the
loop of pretraining `task_scores.json`.
`stage.py` the stage evaluate: exact match and bits per byte, baselines beside them · `in_loop.py` tasks while a model
trains · `forms.py` their formats · `tasks.py` their items · `intervals.py` the intervals.
"""
