"""What the user writes: one YAML file, read into strict, described settings; and what it will cost, before any work.

In: a recipe file and overrides. Out: a `Recipe`, or one sentence with file, line and nearest valid key.
`loading.py` reads · `schema.py` the recipe, the kinds of stages and the graph's rules · `base.py` what settings are ·
`curation.py`, `text.py`, `network.py`, `training.py` the settings of each kind · `files.py` raw inputs ·
`rates.py`, `epochs.py` what follows from phases · `parallel_checks.py` plans that cannot be ·
`size.py`, `memory.py`, `stretches.py`, `plan.py` the cost.
"""
