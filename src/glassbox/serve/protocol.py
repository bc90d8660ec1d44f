"""What clients send and what they get back, in OpenAI's shapes.

Requests are pydantic models: wrong types are refused, fields of OpenAI's interface that mean nothing here are accepted
and left alone. Replies are built by small functions, since their keys depend on what was asked for.
"""

import math
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text holds half of a surrogate pair, which is no character") from error
    return text


Text = Annotated[str, AfterValidator(_whole)]
StopText = Annotated[Text, Field(min_length=1, max_length=256)]
Prompt = Text | list[Text] | list[int] | list[list[int]]
Stops = Annotated[list[StopText], Field(max_length=16)]


class Incoming(BaseModel):
    """Strict types ("1" is no number), unknown fields let through."""

    model_config = ConfigDict(strict=True, extra="allow", use_attribute_docstrings=True)


class TextPart(Incoming):
    """A piece of a message given in parts; only text is understood."""

    type: Literal["text"]
    text: Text


class Message(Incoming):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None

    def plain(self) -> dict[str, str]:
        """The turn as the chat format knows it: `developer` is OpenAI's newer word for `system`."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class StreamOptions(Incoming):
    """Options of a streamed reply."""

    include_usage: bool = False
    """Send a last chunk with token counts."""


class Generation(Incoming):
    """What both ways of asking share. Defaults are OpenAI's."""

    model: str | None = None
    """Name of the model; left out: the one that is served."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the smallest set of tokens whose probability reaches this."""
    top_k: int = Field(default=0, ge=0)
    """Keep this many most likely tokens; 0 keeps all (not an OpenAI field)."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest reply in tokens; left out: as much as the context holds."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Fixes what is drawn; left out: another one each time."""
    n: int = Field(default=1, ge=1, le=16)
    """Replies to the same prompt; reply i is drawn with seed + i."""
    stop: StopText | Stops | None = None
    """Texts that end a reply; they are not part of it."""
    stream: bool = False
    """Send the reply as server-sent events while it is made."""
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_usage_chunk(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Generation):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """OpenAI's newer name of `max_tokens`."""
    logprobs: bool = False
    """Give each token with its log-probability, natural logarithm, before temperature and cuts."""
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    """Likeliest alternatives to list at each token; not for streamed replies."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_logprobs and (self.stream or not self.logprobs):
            raise ValueError("top_logprobs needs logprobs: true and stream: false")
        if self.max_tokens is None:
            self.max_tokens = self.max_completion_tokens
        return self


class CompletionRequest(Generation):
    """POST /v1/completions: text or token ids are continued as they are, without the chat format."""

    prompt: Prompt
    """One text, several, one list of token ids, or several."""
    max_tokens: int | None = Field(default=16, ge=0)
    """Longest continuation in tokens; 0 (with `echo`) only scores the prompt."""
    echo: bool = False
    """Give the prompt back in front of its continuation; with `logprobs` its tokens are scored too."""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    """Give log-probabilities, and this many alternatives at each token; not for streamed replies."""

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, prompt: Prompt) -> Prompt:
        if isinstance(prompt, list) and (not prompt or any(each == [] for each in prompt)):
            raise ValueError("an empty list is no prompt; give a text, or at least one token id")
        return prompt

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stream and (self.echo or self.logprobs is not None):
            raise ValueError("echo and logprobs of a completion need stream: false")
        return self

    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, however they were given."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt


def now() -> int:
    """Unix time in seconds."""
    return int(time.time())


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of every refusal."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """Token counts; each prompt counts once, whatever `n` is."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def token_entry(piece: bytes, logprob: float) -> dict[str, Any]:
    """A token in the chat form: its text, its bytes (a character may be spread over tokens) and its log-probability."""
    return {"token": piece.decode("utf-8", "replace"), "bytes": list(piece), "logprob": finite(logprob)}


def finite(logprob: float) -> float:
    """JSON has no infinity: OpenAI's floor for a token of probability 0."""
    return logprob if math.isfinite(logprob) else -9999.0


def chat_message(text: str) -> dict[str, Any]:
    """An assistant's turn."""
    return {"role": "assistant", "content": text, "refusal": None}


def models(name: str, created: int, context: int) -> dict[str, Any]:
    """The list of the one model served; `max_model_len` (vLLM's name) is its context in tokens."""
    model = {"id": name, "object": "model", "created": created, "owned_by": "glassbox", "max_model_len": context}
    return {"object": "list", "data": [model]}


FIELDS = {
    name
    for incoming in (ChatRequest, CompletionRequest, Message, TextPart, StreamOptions)
    for name in incoming.model_fields
}


def field_name(location: Sequence[int | str]) -> str:
    """messages.0.content for ("body", "messages", 0, "content", "str"): what pydantic adds are names of types."""
    return ".".join(str(part) for part in location if isinstance(part, int) or part in FIELDS)
