"""The network: token ids in, hidden states (and the output matrix) out; training and decoding share one forward.

`transformer.py` puts the parts together and sets the first weights; the parts are `attention.py` (with `spans.py`),
`feed_forward.py`, `experts.py` and the leaves in `layers.py`; `cache.py` holds keys and values while decoding;
`grow.py` makes first weights from another model. `folder.py` saves and loads a model folder, ours or Hugging Face's:
what a family is says `families.py`, what its files call our tensors `names.py`, how files are read and written
`tensors.py`, and those that several processes wrote `pieces.py`. What a network costs, before it is built, is in
`recipe/size.py`.
"""
