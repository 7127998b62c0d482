"""One request at a time, and only so many that wait: what stands before a model that answers a whole request in one go.

Why no engine and no queue of slots as for text: such an answer is one forward pass, or one search over all that a request
holds, so that a lock is enough. The limit on those who wait keeps a flood from filling the server's threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from duihua.engine.service import EngineBusy
from duihua.errors import GenerationError

SECONDS_BETWEEN_LOOKS = 0.1
"""How often a request that waits for its turn asks whether it is still waited for."""


class GivenUp(GenerationError):  # noqa: N818  (no fault: whoever asked has gone)
    """Nobody waits for the answer any more, and its turn had not come."""


class Turns:
    """The turns of one model. May be used from any thread. waiting: requests now, the one whose turn it is included."""

    def __init__(self, model: str, most_waiting: int) -> None:
        self._model, self._most = model, most_waiting
        self._work, self._count, self.waiting = threading.Lock(), threading.Lock(), 0

    @contextmanager
    def take(self, stop: Callable[[], bool] | None = None) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends. stop: whether nobody waits for the answer any more; asked while
        others have their turns. Raises EngineBusy when too many wait already, GivenUp where `stop` says so."""
        with self._count:
            if self.waiting > self._most:
                raise EngineBusy(
                    f"{self._most} requests wait for {self._model} already", remedy="Ask again when some are answered"
                )
            self.waiting += 1
        try:
            while not self._work.acquire(timeout=-1 if stop is None else SECONDS_BETWEEN_LOOKS):
                if stop is not None and stop():
                    raise GivenUp("nobody waits for the answer any more", remedy="Ask again")
            try:
                yield
            finally:
                self._work.release()
        finally:
            with self._count:
                self.waiting -= 1
