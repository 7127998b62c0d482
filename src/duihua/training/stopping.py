"""Stopping a run without losing a step: a signal sets a wish, and the loop ends after the step that it is in."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from duihua import console


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a wish to stop after this step; the second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
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
            raise KeyboardInterrupt
        self.asked = True
        console.say("Stopping after this step; the same command goes on from here.")
