"""What can be said of a document's text by rule: statistics, line rules, language, verdicts.

In: batches of texts with their metadata. Out: `statistics.py` the numbers that rules compare, `verdicts.py` which rule
condemns which document, `lines.py` texts without the lines that rules cut, `language.py` what language a text is in.
"""
