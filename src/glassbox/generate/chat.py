"""A conversation with a model, in tokens and text: what the terminal chat talks to."""

from collections.abc import Iterator

from glassbox.errors import RequestError
from glassbox.generate.engine import Engine, Request
from glassbox.generate.replies import conversation_prompt, seed_for, stop_ids
from glassbox.generate.streaming import TextStream
from glassbox.model.folder import LoadedModel
from glassbox.tokens.tokenizer import token_bytes


class ChatSession:
    """Keeps the conversation and streams replies. The same questions in the same order get the same replies."""

    def __init__(self, loaded: LoadedModel, *, temperature: float, max_new_tokens: int, seed: int):
        self._loaded, self._temperature, self._max_new_tokens, self._seed = loaded, temperature, max_new_tokens, seed
        self._engine = Engine(loaded.model, slots=1, capacity=loaded.context)
        self._token_bytes = token_bytes(loaded.tokenizer)
        self._asked = 0
        self.turns: list[tuple[str, str]] = []
        """(question, reply), oldest first: what the model is told of the conversation."""

    def reply(self, question: str) -> Iterator[str]:
        """The reply's text, piece by piece. What was said so far counts as the reply if the caller stops early.

        Where the context cannot hold the conversation and a reply of `max_new_tokens`, the oldest turns are forgotten,
        whole. Raises RequestError if the question alone leaves no room for a reply.
        """
        prompt, said = self._prompt(question), ""
        request = Request(
            prompt_ids=prompt,
            max_new_tokens=min(self._max_new_tokens, self._loaded.context - len(prompt)),
            temperature=self._temperature,
            seed=seed_for("chat", self._seed, self._asked),
            stop_ids=stop_ids(self._loaded),
        )
        self._asked += 1
        try:
            for piece in self._pieces(request):
                said += piece
                yield piece
        finally:
            self.turns.append((question, said))

    def _prompt(self, question: str) -> list[int]:
        """The conversation's ids up to where the reply begins, after forgetting the oldest turns that do not fit."""
        while True:
            messages = [
                message
                for asked, said in self.turns
                for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
            ]
            messages.append({"role": "user", "content": question})
            prompt = conversation_prompt(self._loaded, messages)
            if not self.turns or len(prompt) + self._max_new_tokens <= self._loaded.context:
                break
            del self.turns[0]
        if len(prompt) >= self._loaded.context:
            raise RequestError(
                f"the question has {len(prompt)} tokens and leaves no room for a reply in the model's context of "
                f"{self._loaded.context}; ask a shorter one"
            )
        return prompt

    def _pieces(self, request: Request) -> Iterator[str]:
        stream = TextStream(self._token_bytes)
        number = self._engine.submit(request)
        try:
            finished = False
            while not finished:
                for event in self._engine.step():
                    finished = event.finish_reason is not None
                    yield stream.push(event.token) + (stream.flush() if finished else "")
        finally:
            self._engine.abort(number)
