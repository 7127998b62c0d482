"""One request at a time, only so many that wait, and nobody is counted who has gone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from duihua.engine.service import EngineBusy
from duihua.serving.turns import GivenUp, Turns


def hold(turns: Turns) -> tuple[threading.Thread, threading.Event]:
    """A thread that has its turn until the event is set."""
    inside, go = threading.Event(), threading.Event()

    def work() -> None:
        with turns.take():
            inside.set()
            assert go.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(20)
    return thread, go


def test_turns_come_one_after_the_other(wait_until: Callable[..., None]) -> None:
    turns = Turns("m", most_waiting=8)
    first, go = hold(turns)
    inside: list[int] = []
    together: list[int] = []

    def work(number: int) -> None:
        with turns.take():
            inside.append(number)
            together.append(len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: turns.waiting == 5)
    assert together == []  # the first still has its turn
    go.set()
    for thread in (first, *threads):
        thread.join(20)
    assert together == [1, 1, 1, 1]
    assert turns.waiting == 0


@pytest.mark.parametrize("most", [0, 1])
def test_one_more_than_may_wait_is_turned_away_and_the_last_that_may_is_not(
    most: int, wait_until: Callable[..., None]
) -> None:
    turns = Turns("m", most_waiting=most)
    first, go = hold(turns)

    def work() -> None:
        with turns.take():
            pass

    others = [threading.Thread(target=work) for _ in range(most)]
    for thread in others:
        thread.start()
    wait_until(lambda: turns.waiting == 1 + most)
    with pytest.raises(EngineBusy, match=f"{most} requests wait for m already"), turns.take():
        pass
    assert turns.waiting == 1 + most  # who was turned away is not counted
    go.set()
    for thread in (first, *others):
        thread.join(20)
    assert turns.waiting == 0


def test_who_has_gone_leaves_the_queue_and_who_waits_stays_in_it() -> None:
    turns = Turns("m", most_waiting=4)
    first, go = hold(turns)
    looks: list[bool] = []

    def gone() -> bool:
        looks.append(len(looks) == 2)  # still there at the first two looks
        return looks[-1]

    with pytest.raises(GivenUp), turns.take(gone):
        pass
    assert looks == [False, False, True]
    assert turns.waiting == 1
    go.set()
    first.join(20)


def test_an_error_ends_the_turn() -> None:
    turns = Turns("m", most_waiting=0)
    with pytest.raises(ValueError, match="wrong"), turns.take():
        raise ValueError("wrong")
    assert turns.waiting == 0
    with turns.take():  # the next has its turn at once
        assert turns.waiting == 1
