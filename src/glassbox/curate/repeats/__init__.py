"""What documents repeat: exact and near copies, passages, copies in meaning, evaluation problems.

In: hashes, signatures or texts of all documents, and the order of priority. Out: for each document the one it repeats
(`exact.py`, `near.py`, `semantic.py`), the stretches to cut (`substrings.py`), the problems that it holds
(`contamination.py`).
"""
