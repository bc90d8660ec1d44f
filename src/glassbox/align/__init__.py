"""From a base model to one that answers: supervised fine-tuning, then preferences; and solutions a model writes itself.

In: a model and problems (train split). Out: a model, and for preferences the pairs it learnt from (`pairs.jsonl`);
from `synthesize` documents. `sft.py` the stage sft · `dpo.py` the stage dpo: samples, pairs, training · `objective.py`
the losses as pure functions · `synthesize.py` the stage synthesize, `verified.py` what it keeps, `endpoint.py` who is
asked.
"""
