"""glassbox: raw pages and code to a served reasoning model, every step readable, re-runnable, checked and traced."""

__version__ = "0.1.0"
