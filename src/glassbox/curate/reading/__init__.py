"""Stored bytes to documents: files of every format, whole or damaged, in bounded memory; addresses, repair, masks.

In: a part of a source's files. Out: `readers.read` gives each document as stored, with where it was read; `extract.py`
decodes it, `addresses.py` judges its address, `repair.py` mends its encoding, `personal.py` masks personal data.
"""
