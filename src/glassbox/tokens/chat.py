"""Conversations as ChatML: rendered in segments, each known to be trained on or not.

    <|im_start|>user\\nWhat is 2 + 2?<|im_end|>\\n<|im_start|>assistant\\n2+2=4<|im_end|>\\n

Trained: what an assistant says, with its end-of-turn token. Segments are encoded one by one, so no token straddles the
border of a segment, the ids of a conversation's beginning never change as it goes on, and what a model sees in training
after "<|im_start|>assistant\\n" is what it is given when it shall answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.tokens.tokenizer import END_OF_TEXT, END_OF_TURN, PRE_TOKENIZER, START_OF_TURN, encode, special_id

Message = Mapping[str, str]
"""{"role": "system", "user", "assistant" or "tool", "content": text}"""
ROLES = ("system", "user", "assistant", "tool")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The same rendering as a Jinja template, for other software; its text equals that of `render`."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation."""

    text: str
    trainable: bool
    special: bool = False
    """Whether the text is the name of one special token; otherwise it is plain text, whatever it says."""


def render(messages: Sequence[Message], generation_prompt: bool = False) -> list[Segment]:
    """The segments of a conversation; with `generation_prompt`, the head of an assistant's turn follows.

    Raises RequestError for an unknown role or content that is not text.
    """
    segments = []
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES or not isinstance(content, str):
            raise RequestError(
                f"message {number} of the conversation: role must be one of {', '.join(ROLES)} and content a text, "
                f"not role {role!r} with content of type {type(content).__name__}"
            )
        segments += _turn(role, content)
    return segments + _head("assistant") if generation_prompt else segments


def _head(role: str) -> list[Segment]:
    return [Segment(START_OF_TURN, False, special=True), Segment(f"{role}\n", False)]


def _turn(role: str, content: str) -> list[Segment]:
    trained = role == "assistant"
    end = [Segment(content, trained), Segment(END_OF_TURN, trained, special=True), Segment("\n", False)]
    return _head(role) + end


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """(ids, mask) of a conversation, of equal length; the mask is True where a token is trained on."""
    ids: list[int] = []
    mask: list[bool] = []
    for segment in render(messages, generation_prompt):
        piece = [special_id(tokenizer, segment.text)] if segment.special else encode(tokenizer, segment.text)
        ids += piece
        mask += [segment.trainable] * len(piece)
    return ids, mask


def chat_format(tokenizer: Tokenizer) -> dict[str, object]:
    """What `chat.json` holds: the template, and the special tokens by use and by id."""
    uses = {"end_of_text": END_OF_TEXT, "start_of_turn": START_OF_TURN, "end_of_turn": END_OF_TURN}
    return {
        "template": CHAT_TEMPLATE,
        "pre_tokenizer": PRE_TOKENIZER,
        **uses,
        "ids": {use: special_id(tokenizer, token) for use, token in uses.items()},
    }
