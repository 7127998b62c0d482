"""Stopping a run without losing a step: a signal sets a wish, and the loop ends after the step that it is in.

Under a launcher one stop comes as several signals (a scheduler signals every process, and torchrun hands its own on): those
that come shortly after the first are the same wish, or the second would end a rank in the middle of its checkpoint.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

from duihua import console

ECHO_SECONDS = 30.0
"""How long after the first signal others are taken for the same one, where several ranks train."""


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a wish to stop after this step; the second one stops at once.

    launched: by torchrun or the like, so that the second may be the first one again.
    """

    def __init__(self, launched: bool = False) -> None:
        self.asked = False
        self.launched = launched
        self._when = 0.0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if self.launched and time.monotonic() - self._when < ECHO_SECONDS:
                return
            raise KeyboardInterrupt
        self.asked, self._when = True, time.monotonic()
        console.say("Stopping after this step; the same command goes on from here.")
