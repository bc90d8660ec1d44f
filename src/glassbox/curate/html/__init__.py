"""Web pages to text: `page.page_text` is the door.

In: a page's HTML. Out: its main text with lists, tables, code and formulas kept. `kernel.py` reads the bytes into lines
and nodes in one pass, `content.py` picks the content, `page.py` writes it, `mathml.py` turns formulas into TeX.
"""
