"""Ctrl-C that waits for the end of a block, for the few places where it must not act in the middle.

Why: Python raises KeyboardInterrupt wherever it happens to be, also inside an import that C++ has asked for. While torch
is being imported that ends the process with an abort and a dump of the stack instead of an exit code.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM are only noted; the first one acts at the end of the block, as it would have before."""
    if threading.current_thread() is not threading.main_thread():  # signals act in the main thread alone
        yield
        return
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if noted:
            signal.raise_signal(noted[0])
