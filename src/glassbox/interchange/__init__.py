"""Models to and from other software.

In: a Hugging Face folder, or a model of ours. Out: a model folder of ours, a Hugging Face folder, or a GGUF file.
Both ways end with a check. Open `importing.py` and `exporting.py` for the two commands, `gguf.py` for llama.cpp,
`conversion.py` for what they share, `check.py` for how source and result are compared. What a family is says
`model/family_tables.py`, what its files call our tensors `model/names.py`.
"""
