"""What is learnt about documents: classifiers, the line model of clutter, labels, and sampling by their judgement.

In: labelled texts (`labels.py`; `judging.py` has a language model give labels, which `asking.py` asks). Out:
`classifier_stage.py` and `clutter_stage.py` leave models with their held-out quality; `scoring.py` and `clutter.py`
apply them, `sampling.py` says how often each document is used.
"""
