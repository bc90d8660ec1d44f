"""Reinforcement learning with verifiable rewards.

In: a model and problems (train split). Out: a model, and every rollout of every step (`rollouts/step-000001.jsonl`).
`stage.py` the stage grpo: rollouts made inside the loop by the model as it then is · `objective.py` the loss.
"""
