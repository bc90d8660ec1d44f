"""Completions from an OpenAI-compatible endpoint, sampled as a recipe says."""

from collections.abc import Iterator, Mapping
from typing import Any

from glassbox.curate.models import asking
from glassbox.curate.models.asking import Answer
from glassbox.recipe.text import Endpoint
from glassbox.recipe.training import Sampling


def ask(
    endpoint: Endpoint, questions: Mapping[str, tuple[str, int]], sampling: Sampling
) -> Iterator[tuple[str, Answer | None]]:
    """(key, answer) for each key -> (question, seed), as they come; None for one that got none after all tries.

    Raises RequestError for an address or key that cannot be, or an endpoint that refuses or does not answer at all.
    """
    server = asking.Server(
        f"the endpoint {endpoint.url}", endpoint.url, endpoint.model, endpoint.key, endpoint.parallel
    )
    return asking.ask(server, {key: (question, _fields(seed, sampling)) for key, (question, seed) in questions.items()})


def _fields(seed: int, sampling: Sampling) -> dict[str, Any]:
    fields = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": seed,
    }
    return {**fields, "top_k": sampling.top_k} if sampling.top_k else fields
