"""The learning rate as a pure function of how much has been read."""

from glassbox.recipe.rates import factor

__all__ = ["factor"]
