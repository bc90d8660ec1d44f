"""The one training engine: batches and an objective come in, trained weights, metrics and checkpoints go out.

Open `loop.py` for `fit`, the loop that pretraining, SFT, DPO and GRPO share, `step.py` for the gradient of a step and
`rows.py` for what a batch is; `parallel/` for how a model is spread over processes; `losses.py` for log-probabilities
that never hold all logits; `optimizer.py`, `precision.py`, `safety.py` and `watch.py` for updates, arithmetic and what
goes wrong; `checkpoint.py` for exact resume and `storage.py` for who writes what; `pretrain.py` for the stage;
`evaluation.py` for bits per byte; `finish.py` for what all trainers leave behind.
"""
