from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from duihua.engine.engine import Engine, default_seeds
from duihua.engine.sampling import SamplingSettings
from duihua.engine.service import EngineBusy, EngineService
from duihua.errors import GenerationError
from duihua.models.decoder import Decoder

LONG = SamplingSettings(max_new_tokens=50, stop_ids=(), seed=1)
PATIENCE = 20.0


class Gate:
    """Holds every forward of a network until `open` is called, and counts forwards."""

    def __init__(self, network: Decoder) -> None:
        self._event = threading.Event()
        self.entered = threading.Event()
        self.forwards = 0
        self._handle = network.final_norm.register_forward_pre_hook(self._wait)

    def _wait(self, *_: Any) -> None:
        self.forwards += 1
        self.entered.set()
        assert self._event.wait(PATIENCE)

    def open(self) -> None:
        self._event.set()

    def remove(self) -> None:
        self.open()
        self._handle.remove()


@pytest.fixture
def gate(network: Decoder) -> Iterator[Gate]:
    gate = Gate(network)
    yield gate
    gate.remove()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


def test_many_readers_get_what_each_would_get_alone(network: Decoder) -> None:
    prompts = [[1, 2, index] for index in range(12)]
    alone = [Engine(network, None).generate([prompt], LONG)[0].ids for prompt in prompts]
    with EngineService(Engine(network, None, slots=3), most_waiting=20) as service:
        tickets = [service.submit(prompt, LONG) for prompt in prompts]
        found: dict[int, list[int | None]] = {}

        def read(index: int) -> None:
            found[index] = [event.id for event in tickets[index]]

        threads = [threading.Thread(target=read, args=(index,)) for index in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert [found[index] for index in range(12)] == alone
        status = service.status()
        assert (status.active, status.waiting, status.requests, status.tokens) == (0, 0, 12, 12 * 50)
        assert tickets[0].completion_tokens == 50
        assert tickets[0].prompt_tokens == 3


def test_submitting_and_cancelling_do_not_wait_for_a_forward_and_the_slot_is_free_at_the_next_step(
    network: Decoder, gate: Gate
) -> None:
    with EngineService(Engine(network, None, slots=1)) as service:
        first = service.submit([1, 2], LONG)
        assert gate.entered.wait(PATIENCE)  # the engine's thread is inside a forward and stays there
        second = service.submit([3, 4], LONG)
        first.cancel()
        assert (service.status().active, service.status().waiting) == (1, 1)
        gate.open()
        events = list(first)
        assert events[-1].finish_reason == "cancelled"
        # The step that was running had a forward for the prompt and one for a token; the next one drops it.
        assert first.completion_tokens <= 2
        assert len(list(second)) == 50
    assert gate.forwards <= 2 + 50


def test_a_reader_that_leaves_frees_the_slot(network: Decoder) -> None:
    with EngineService(Engine(network, None, slots=1)) as service:
        ticket = service.submit([1, 2], LONG)
        reader = iter(ticket)
        next(reader)
        reader.close()  # type: ignore[attr-defined]
        assert len(list(service.submit([3, 4], LONG))) == 50
        assert ticket.completion_tokens < 50
        wait_until(lambda: service.status().active == 0)


def test_the_queue_is_bounded(network: Decoder, gate: Gate) -> None:
    with EngineService(Engine(network, None, slots=1), most_waiting=2) as service:
        running = service.submit([1], LONG)
        assert gate.entered.wait(PATIENCE)
        waiting = [service.submit([1], LONG) for _ in range(2)]
        with pytest.raises(EngineBusy, match="2 requests are waiting"):
            service.submit([1], LONG)
        gate.open()
        for ticket in [running, *waiting]:
            assert len(list(ticket)) == 50
        assert len(list(service.submit([1], LONG))) == 50


def test_bad_requests_are_refused_at_the_door(network: Decoder) -> None:
    with EngineService(Engine(network, None)) as service:
        with pytest.raises(GenerationError, match="empty"):
            service.submit([], LONG)
        assert service.status().requests == 0
    with pytest.raises(EngineBusy):
        service.submit([1], LONG)


def test_readers_in_an_event_loop_share_the_engine(network: Decoder) -> None:
    alone = Engine(network, None).generate([[1, 2]], LONG)[0].ids

    async def read(service: EngineService, stop_after: int = 99) -> list[int | None]:
        ids: list[int | None] = []
        async for event in service.submit([1, 2], LONG):
            ids.append(event.id)
            if len(ids) == stop_after:
                break
        return ids

    async def main(service: EngineService) -> list[list[int | None]]:
        return await asyncio.gather(*(read(service) for _ in range(4)), read(service, stop_after=3))

    with EngineService(Engine(network, None, slots=2)) as service:
        found = asyncio.run(main(service))
        wait_until(lambda: service.status().active + service.status().waiting == 0)
    assert found[:4] == [alone] * 4
    assert found[4] == alone[:3]


def test_a_failed_forward_reaches_its_readers_and_the_service_goes_on(network: Decoder) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    with EngineService(Engine(network, None, slots=2)) as service:
        handle = network.final_norm.register_forward_hook(fail)
        try:
            tickets = [service.submit([1], LONG) for _ in range(3)]
            for ticket in tickets:
                with pytest.raises(RuntimeError, match="no memory"):
                    list(ticket)
        finally:
            handle.remove()
        assert len(list(service.submit([1], LONG))) == 50
        assert service.status().failures >= 1


def test_closing_lets_running_replies_end_within_the_time_and_cancels_the_rest(network: Decoder, gate: Gate) -> None:
    patient = EngineService(Engine(network, None)).start()
    ticket = patient.submit([1], LONG)
    gate.open()
    patient.close(drain_seconds=PATIENCE)
    assert [event.finish_reason for event in ticket][-1] == "length"

    hasty = EngineService(Engine(network, None, slots=1)).start()
    long = SamplingSettings(max_new_tokens=60, stop_ids=())
    tickets = [hasty.submit([1], long) for _ in range(20)]
    hasty.close()
    assert [event.finish_reason for event in tickets[-1]] == ["cancelled"]
    assert hasty.status().active + hasty.status().waiting == 0


def test_one_seed_gives_one_text_by_service_and_by_generate(network: Decoder) -> None:
    with EngineService(Engine(network, None)) as service:
        ticket = service.submit([1, 2], LONG)
        ids = [event.id for event in ticket]
        assert ticket.seed == default_seeds(LONG, 1)[0]
        other = [event.id for event in service.submit([1, 2], LONG, seed=5)]
    assert ids == Engine(network, None).generate([[1, 2]], LONG)[0].ids
    assert other == Engine(network, None).generate([[1, 2]], LONG, [5])[0].ids
    assert ids != other
    assert torch.is_inference_mode_enabled() is False
