"""Models to and from other software.

In: a Hugging Face folder, or a model of ours. Out: a model folder of ours, a Hugging Face folder, or a GGUF file.
Both ways end with a check. Open `importing.py` and `exporting.py` for the two commands, `check.py` for how source and
result are compared, `gguf.py` for llama.cpp. What a family is: `model/families.py`, its tensors' names: `model/names.py`.
"""
