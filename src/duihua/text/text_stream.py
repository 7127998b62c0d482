"""Turns ids into text as they come, for chat in the terminal and for server-sent events.

Two things make this more than decoding each id: one character's bytes may lie in two or three tokens (most Chinese
characters and emoji in a small vocabulary), and a stop string may begin in one token and end in another. Bytes are held
until they make a character, and characters are held only while they could still become a stop string.

What holds: the pieces, joined, equal `tokenizer.decode` of all ids, cut before the stop string that is complete first;
how the text was split into tokens makes no difference.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from duihua.errors import GenerationError
from duihua.text.tokenizer import Tokenizer


class TextStream:
    """One reply's text. `push` each id, print what it returns, and end with `finish`.

    stop_strings: text that ends the reply and is not part of it. `stopped` is true once one was met; `stop_string` says
    which. Control tokens give no text.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        if any(not stop for stop in stop_strings):
            raise GenerationError("a stop string is empty", where="stop", remedy="Leave it out")
        self._tokenizer = tokenizer
        self._stops = tuple(dict.fromkeys(stop_strings))
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False
        self.stop_string: str | None = None

    def push(self, id: int) -> str:
        """The text that is certain now that `id` has come; often empty in the middle of a character."""
        if self.stopped or id in self._tokenizer.special_ids:
            return ""
        return self._release(self._decoder.decode(self._tokenizer.token_bytes(id)))

    def finish(self) -> str:
        """The rest: unfinished bytes as U+FFFD, and held text that did not become a stop string after all."""
        if self.stopped:
            return ""
        released = self._release(self._decoder.decode(b"", final=True))
        if not self.stopped:
            released, self._held = released + self._held, ""
        return released

    def _release(self, text: str) -> str:
        if not self._stops:
            return text
        held = self._held + text
        found = [(held.find(stop) + len(stop), held.find(stop), stop) for stop in self._stops if stop in held]
        if found:
            _, start, self.stop_string = min(found)  # the one complete first; of two that end together, the longer
            self.stopped, self._held = True, ""
            return held[:start]
        keep = max(_overlap(held, stop) for stop in self._stops)
        cut = len(held) - keep
        self._held = held[cut:]
        return held[:cut]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop` but not all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
