"""The network: token ids in, hidden states (and the output matrix) out; training and decoding share one forward.

`transformer.py` puts the parts together and sets the first weights; the parts are `attention.py`, `feed_forward.py`,
`experts.py` and the leaves in `layers.py`; `cache.py` holds keys and values while decoding. `folder.py` saves and loads
a model folder. What a network costs, before it is built, is in `recipe/size.py`.
"""
