"""Is this answer right? Generated problems with written-out reasoning, and the grader that checks replies to them.

In: the settings of a `problems` stage. Out: `train.jsonl` and `held_out.jsonl`, rows of `problems.Problem`.
Open `problems.py` for how problems are drawn and split, `kinds.py` (bare arithmetic) and `stories.py` (word
problems) for what is asked, `steps.py` for how a calculation is written out, `verify.py` for grading a reply,
`stage.py` to run it.
"""
