"""Decoding: requests of token ids in, completions of token ids with their log-probabilities out.

`engine.py` runs many requests side by side over a key/value cache, `sampling.py` turns logits into a token, `score.py`
gives the log-probabilities of given tokens, `continuations.py` those of the ways one prompt may go on. In words:
`replies.py` samples answers to questions, `chat.py` keeps a conversation, `streaming.py` turns a stream of tokens into
a stream of text.
"""
