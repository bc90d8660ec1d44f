"""Token ids in, text out, piece by piece: whole characters only, and never a part of a stop string."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the tokens of one reply into text as they come.

    A character whose bytes are not all there waits for the next token, and so does text that may be the beginning of a
    stop string. All pieces and the flush joined are the reply's text up to the stop string that was complete first, so
    neither token borders nor streaming change what is said. Bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, token_bytes: Sequence[bytes], stops: Sequence[str] = ()):
        """`token_bytes`: the bytes of each id (`tokens.tokenizer.token_bytes`); `stops`: texts, none of them empty."""
        self._token_bytes, self._stops = token_bytes, tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.sent = 0
        """Characters given out."""
        self.stopped = False
        """Whether a stop string was met; from then on nothing more comes out."""

    @property
    def seen(self) -> int:
        """Characters the tokens so far reach into, those held back and an unfinished one included: once `sent` is as
        large, all the text of those tokens is out."""
        return self.sent + len(self._held) + bool(self._decoder.getstate()[0])

    def push(self, token: int) -> str:
        """The text that this token makes certain; often empty. An id the tokenizer does not know has no text."""
        known = token < len(self._token_bytes)
        return self._release(self._decoder.decode(self._token_bytes[token])) if known else ""

    def flush(self) -> str:
        """The text still held back, when no more tokens come."""
        piece = self._release(self._decoder.decode(b"", final=True))
        return piece + self._send(len(self._held))

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if not found:
            return self._send(len(self._held) - max((_overlap(self._held, stop) for stop in self._stops), default=0))
        self.stopped = True
        piece, self._held = self._send(min(found)[1]), ""
        return piece

    def _send(self, length: int) -> str:
        piece, self._held = self._held[:length], self._held[length:]
        self.sent += length
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, the whole of it left out."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
