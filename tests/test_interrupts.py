from __future__ import annotations

import signal
import threading

import pytest

from duihua.interrupts import signals_wait


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block(number: int) -> None:
    reached = []

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, handler)
    try:
        with pytest.raises(KeyboardInterrupt), signals_wait():
            signal.raise_signal(number)
            signal.raise_signal(number)
            reached.append("the end of the block")
        assert signal.getsignal(number) is handler
        with pytest.raises(KeyboardInterrupt):  # control: without the block it acts at once
            signal.raise_signal(number)
            reached.append("never")
    finally:
        signal.signal(number, before)
    assert reached == ["the end of the block"]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_wait():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_of_the_block_is_kept() -> None:
    with pytest.raises(ValueError, match="of the block"), signals_wait():
        raise ValueError("of the block")


def test_other_threads_may_use_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with signals_wait():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
