"""Documents that repeat others: the steps, in the order in which they run.

Exact copies by the hash of a plain form of the text (`exact`); near copies by MinHash signatures (`minhash`), banding
(`near`) and a check of what meets (`survivors`); repeated passages (`substrings`); copies in meaning (`semantic`). All
take the documents in order of priority, and of copies the earliest in that order stays.
"""

from glassbox.curate.exact import content_keys, exact_copies
from glassbox.curate.minhash import signatures
from glassbox.curate.near import near_copies

__all__ = ["content_keys", "exact_copies", "near_copies", "signatures"]
