"""Parallelism, applied to a plain model: a plan and a `Transformer` come in, this process's part of it goes out.

`ranks.py` has the mesh of processes, `place.py` turns a plan into calls, `sequence.py` divides heads and columns,
`experts.py` experts, `stages.py` layers; `layout.py` says where a process's values lie in the whole tensors.
`pipeline.py` runs stretches of layers: `schedules.py` has the order of work, `work.py` what a stage does, `overlap.py`
two passes by turns; `simulate.py` plays an order through.
"""
