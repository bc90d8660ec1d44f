"""The conversations of models that were not trained here, by the Jinja template in their folder."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from glassbox.errors import RequestError
from glassbox.model.folder import LoadedModel, Manner
from glassbox.tokens.chat import Message
from glassbox.tokens.tokenizer import SPECIAL_TOKENS


def foreign_manner(loaded: LoadedModel) -> Manner | None:
    """The model's own way of framing texts; None where its tokenizer has the tokens of ours."""
    if loaded.manner is None or all(loaded.tokenizer.token_to_id(token) is not None for token in SPECIAL_TOKENS):
        return None
    return loaded.manner


def render_template(manner: Manner, messages: Sequence[Message]) -> str:
    """The conversation as text, up to where the assistant's next turn begins.

    The template runs in a sandbox. Raises RequestError if there is none, if it refuses the messages, or if a message
    holds the name of a special token: it would be taken for one.
    """
    if manner.template is None:
        raise RequestError(
            "the model has no form of conversation (neither ChatML's tokens nor a chat_template): it can score and "
            "continue texts, not chat"
        )
    special = [token.content for token in manner.reader.get_added_tokens_decoder().values() if token.special]
    for number, message in enumerate(messages):
        found = next((token for token in special if token in message.get("content", "")), None)
        if found is not None:
            raise RequestError(
                f"message {number} of the conversation holds {found}, which is a sign of the model's own"
            )
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    names: dict[str, Any] = {"messages": [dict(message) for message in messages], "add_generation_prompt": True}
    try:
        return environment.from_string(manner.template).render(**names, **manner.tokens)
    except TemplateError as error:
        raise RequestError(f"the model's chat_template refuses the conversation: {error}") from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
