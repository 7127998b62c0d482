from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duihua.engine.engine import Engine, default_seeds
from duihua.engine.request import Completion, Request, TokenEvent
from duihua.engine.sampling import SamplingSettings, sample_seed
from duihua.engine.slot_cache import SlotCache
from duihua.errors import GenerationError
from duihua.models.decoder import Decoder
from duihua.text.tokenizer import Tokenizer

PLAIN = SamplingSettings(max_new_tokens=12, stop_ids=(7,), seed=3)
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=12, stop_ids=(7,))


def some_prompts(count: int, seed: int = 0, vocabulary: int = 61) -> list[list[int]]:
    """Prompts of lengths 1 to 30."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 31, (count,), generator=generator).tolist()
    return [torch.randint(0, vocabulary, (length,), generator=generator).tolist() for length in lengths]


def uncached(
    network: Decoder, prompt: Sequence[int], ids: Sequence[int], temperature: float = 1.0, shift: int = 1
) -> torch.Tensor:
    """Log-probabilities of `ids` after `prompt` from one forward over everything, without a cache."""
    with torch.no_grad():
        logits = network(torch.tensor([[*prompt, *ids]]))[0].float() / temperature
    places = torch.arange(len(prompt), len(prompt) + len(ids)) - shift
    return logits.log_softmax(-1)[places, torch.tensor(ids)]


def same(one: Completion, other: Completion) -> bool:
    """Equal but for rounding: batches of other sizes are multiplied in another order."""
    close = len(one.ids) == len(other.ids) and torch.allclose(one.logprobs, other.logprobs, atol=2e-5)
    return close and one.ids == other.ids and one.finish_reason == other.finish_reason


# -- the cache ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_cached_log_probabilities_equal_uncached_ones(network: Decoder, temperature: float) -> None:
    prompts = some_prompts(9)
    setting = SamplingSettings(temperature=temperature, max_new_tokens=20, stop_ids=(7,), seed=1)
    for prompt, found in zip(prompts, Engine(network, None, slots=4).generate(prompts, setting), strict=True):
        assert torch.allclose(
            found.logprobs, uncached(network, prompt, found.ids, temperature or 1.0), atol=2e-5, rtol=0
        )
        if len(found.ids) > 2:  # negative controls: shifted by one, and at another temperature
            assert not torch.allclose(found.logprobs, uncached(network, prompt, found.ids, shift=0), atol=1e-2, rtol=0)
            wrong = uncached(network, prompt, found.ids, 1.3 * (temperature or 1.0))
            assert not torch.allclose(found.logprobs, wrong, atol=1e-2, rtol=0)


def test_greedy_text_is_the_argmax_of_the_uncached_model(network: Decoder) -> None:
    for prompt in some_prompts(4):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(12):
                ids.append(int(network(torch.tensor([ids]))[0, -1].argmax()))
                if ids[-1] == 7:
                    break
        assert Engine(network, None).generate([prompt], GREEDY)[0].ids == ids[len(prompt) :]


def test_the_cache_grows_with_use_and_keeps_what_it_holds(network: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duihua.engine.slot_cache.SMALLEST_CAPACITY", 4)
    prompts = [[1, 2, 3], [4, 5, 6, 8, 9, 10]]
    setting = SamplingSettings(max_new_tokens=50, stop_ids=(), seed=2)
    engine = Engine(network, None, slots=2)
    found = engine.generate(prompts, setting)
    assert engine._batch.memory.cache is not None
    assert engine._batch.memory.cache.capacity == 56
    for prompt, completion in zip(prompts, found, strict=True):
        assert torch.allclose(completion.logprobs, uncached(network, prompt, completion.ids), atol=2e-5)


# -- company --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3, 16])
@pytest.mark.parametrize("setting", [PLAIN, GREEDY], ids=["sampled", "greedy"])
def test_batched_equals_alone_whatever_slots_and_order(network: Decoder, slots: int, setting: SamplingSettings) -> None:
    prompts = some_prompts(16)
    seeds = [sample_seed(0, 0, index, 0) for index in range(16)]
    alone = [
        Engine(network, None, slots=1).generate([prompt], setting, [seed])[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    together = Engine(network, None, slots=slots).generate(prompts, setting, seeds)
    backwards = Engine(network, None, slots=slots).generate(prompts[::-1], setting, seeds[::-1])[::-1]
    assert all(map(same, alone, together))
    assert all(map(same, alone, backwards))
    assert len({len(completion.ids) for completion in alone}) > 1, "replies should end at different times"
    if setting is PLAIN:  # negative control: the seed decides the text
        other = Engine(network, None, slots=slots).generate(prompts, setting, seeds[::-1])
        assert not all(map(same, alone, other))


def test_one_slot_moved_wrongly_is_noticed(network: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above: the last request takes a freed slot without its keys."""
    prompts, seeds = some_prompts(16), list(range(16))
    right = Engine(network, None, slots=16).generate(prompts, PLAIN, seeds)
    monkeypatch.setattr(SlotCache, "_swap", lambda *_: None)
    assert not all(map(same, right, Engine(network, None, slots=16).generate(prompts, PLAIN, seeds)))


def test_freed_slots_are_filled_at_the_next_step(network: Decoder) -> None:
    engine = Engine(network, None, slots=2)
    for prompt, limit in [([1, 2], 2), ([3, 4], 9), ([5, 6], 9), ([8, 9], 9)]:
        setting = SamplingSettings(max_new_tokens=limit, stop_ids=())
        engine.enqueue(engine.request(prompt, setting, 0))
    engine.step()  # the first ends within it: one token by the prompt, one by the decoding
    assert (engine.active, engine.waiting) == (1, 2)
    engine.step()
    assert (engine.active, engine.waiting) == (2, 1)


def test_long_prompts_enter_a_few_at_a_time(network: Decoder) -> None:
    engine = Engine(network, None, slots=8, prefill_tokens=40)
    for _ in range(3):
        engine.enqueue(engine.request([1] * 18, SamplingSettings(max_new_tokens=20, stop_ids=()), 0))
    engine.step()
    assert (engine.active, engine.waiting) == (2, 1)
    lonely = Engine(network, None, slots=8, prefill_tokens=4)  # a prompt above the limit enters all the same
    assert len(lonely.generate([[1] * 18, [2] * 30], PLAIN)) == 2


# -- where replies end ------------------------------------------------------------------------------------------------


def test_replies_end_at_stop_ids_at_the_limit_and_at_the_context(network: Decoder) -> None:
    engine = Engine(network, None)
    free = engine.generate([[1, 2, 3]], SamplingSettings(max_new_tokens=40, stop_ids=(), seed=5))[0]
    assert (len(free.ids), free.finish_reason) == (40, "length")
    stop = free.ids[10]
    cut = engine.generate([[1, 2, 3]], SamplingSettings(max_new_tokens=40, stop_ids=(stop,), seed=5))[0]
    assert cut.ids == free.ids[: free.ids.index(stop) + 1]
    assert cut.finish_reason == "stop"
    full = engine.generate([[1] * 60], SamplingSettings(max_new_tokens=40, stop_ids=()))[0]
    assert (len(full.ids), full.finish_reason) == (4, "length")  # the context holds 64
    last = engine.generate([[1] * 63], SamplingSettings(max_new_tokens=40, stop_ids=()))[0]
    assert len(last.ids) == 1


def test_end_tokens_are_held_back_below_the_minimum(network: Decoder) -> None:
    every = tuple(range(0, 61, 2))  # half of all tokens end the reply
    short = SamplingSettings(max_new_tokens=30, stop_ids=every, seed=0)
    long = SamplingSettings(max_new_tokens=30, min_new_tokens=9, stop_ids=every, seed=0)
    prompts = some_prompts(12)
    engine = Engine(network, None)
    assert min(len(found.ids) for found in engine.generate(prompts, short)) < 9
    lengths = [len(found.ids) for found in engine.generate(prompts, long)]
    assert min(lengths) == 10
    assert max(lengths) < 30


@pytest.mark.parametrize(
    ("prompt", "setting", "where"),
    [
        ([], PLAIN, "prompt"),
        ([1, 61], PLAIN, "prompt"),
        ([-1], PLAIN, "prompt"),
        ([1] * 64, PLAIN, "prompt"),
        ([1], SamplingSettings(logit_bias={61: 1.0}), "logit_bias"),
        ([1], SamplingSettings(stop_ids=(2, 61)), "stop_ids"),
        ([1], SamplingSettings(stop_ids=(-1,)), "stop_ids"),
        ([1], SamplingSettings(stop=("x",)), "stop"),
    ],
    ids=[
        "empty",
        "unknown id",
        "negative id",
        "longer than the context",
        "bias",
        "stop id",
        "negative stop id",
        "stop string without tokenizer",
    ],
)
def test_what_cannot_be_served_is_a_typed_error(
    network: Decoder, prompt: list[int], setting: SamplingSettings, where: str
) -> None:
    engine = Engine(network, None)
    with pytest.raises(GenerationError) as caught:
        engine.generate([[1, 2], prompt], setting)
    assert caught.value.where == where
    with pytest.raises(GenerationError):
        engine.stream(prompt, setting)
    assert (engine.active, engine.waiting) == (0, 0)


def test_seeds_must_match_the_prompts(network: Decoder) -> None:
    with pytest.raises(GenerationError, match="2 seeds for 1 prompts"):
        Engine(network, None).generate([[1]], PLAIN, [1, 2])
    with pytest.raises(GenerationError, match="slots"):
        Engine(network, None, slots=0)


# -- text -----------------------------------------------------------------------------------------------------------


def test_streamed_text_equals_the_waited_for_text(talker: Decoder, tokenizer: Tokenizer) -> None:
    engine = Engine(talker, tokenizer)
    for seed in range(12):
        setting = SamplingSettings(max_new_tokens=40, seed=seed)
        prompt = tokenizer.encode("你好 hello")
        events = list(engine.stream(prompt, setting))
        whole = engine.generate([prompt], setting)[0]
        assert "".join(event.text for event in events) == whole.text
        assert [event.id for event in events] == whole.ids
        assert [event.finish_reason for event in events] == [None] * (len(events) - 1) + [whole.finish_reason]
        spoken = whole.ids[:-1] if whole.finish_reason == "stop" else whole.ids
        assert whole.text == tokenizer.decode(spoken)


def test_ends_that_the_model_does_not_have_are_no_ends(
    talker: Decoder, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer may know more tokens than its model has rows."""
    setting = SamplingSettings(max_new_tokens=4, min_new_tokens=2, seed=1)
    (expected,) = Engine(talker, tokenizer).generate([[1, 2]], setting)
    monkeypatch.setattr(tokenizer, "stop_ids", (*tokenizer.stop_ids, tokenizer.vocabulary_size + 7))
    (found,) = Engine(talker, tokenizer).generate([[1, 2]], setting)
    assert found.ids == expected.ids


def test_a_stop_string_ends_the_reply_and_is_not_part_of_it(talker: Decoder, tokenizer: Tokenizer) -> None:
    engine, prompt = Engine(talker, tokenizer), tokenizer.encode("hello")
    checked = 0
    for seed in range(10):
        free = engine.generate([prompt], SamplingSettings(max_new_tokens=40, seed=seed, stop_ids=()))[0]
        stop = free.text[6:8]
        if "\ufffd" in stop or not stop:
            continue
        setting = SamplingSettings(max_new_tokens=40, seed=seed, stop_ids=(), stop=(stop,))
        cut = engine.generate([prompt], setting)[0]
        assert cut.text == free.text[: free.text.index(stop)]
        assert cut.finish_reason == "stop"
        assert cut.ids == free.ids[: len(cut.ids)]
        assert len(cut.ids) < len(free.ids)
        assert "".join(event.text for event in engine.stream(prompt, setting)) == cut.text
        checked += 1
    assert checked >= 3


def test_streams_of_one_engine_run_together_and_closing_one_frees_its_slot(network: Decoder) -> None:
    engine = Engine(network, None, slots=2)
    setting = SamplingSettings(max_new_tokens=15, stop_ids=(), seed=1)
    alone = [event.id for event in engine.stream([4, 5], setting)]
    one, two, three = (engine.stream([4, 5], setting) for _ in range(3))
    got = [next(one).id, next(two).id]
    assert engine.active == 2
    one.close()  # type: ignore[attr-defined]
    assert engine.active == 1
    assert [event.id for event in three] == alone
    assert got == alone[:1] * 2
    assert [event.id for event in two] == alone[1:]
    assert (engine.active, engine.waiting) == (0, 0)


# -- the network is someone else's ------------------------------------------------------------------------------------


@pytest.mark.checklist
def test_row_22_dropout_is_off_while_generating_and_the_mode_is_put_back(make_decoder: Callable[..., Decoder]) -> None:
    network = make_decoder()
    network.final_norm = torch.nn.Sequential(network.final_norm, torch.nn.Dropout(0.5))  # type: ignore[assignment]
    quiet = Engine(network.eval(), None).generate([[1, 2, 3]], PLAIN)[0]
    network.train()
    modes: list[bool] = []
    network.final_norm.register_forward_hook(lambda module, *_: modes.append(module.training))
    assert same(Engine(network, None).generate([[1, 2, 3]], PLAIN)[0], quiet)
    assert not any(modes)
    assert network.training
    assert network.final_norm.training
    loud = network(torch.tensor([[1, 2, 3]]))  # negative control: in training mode the dropout does act
    assert not torch.equal(loud, network(torch.tensor([[1, 2, 3]])))


def test_a_network_trains_on_after_generating(make_decoder: Callable[..., Decoder]) -> None:
    network = make_decoder().train()
    engine = Engine(network, None)
    before = engine.generate([[1, 2, 3]], PLAIN)[0]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(3):
        loss = -(network(torch.tensor([[1, 2, 3]])).log_softmax(-1)[0, -1, 4] * before.logprobs.mean().exp())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = engine.generate([[1, 2, 3]], PLAIN)[0]
    assert not same(before, after)
    assert torch.allclose(after.logprobs, uncached(network, [1, 2, 3], after.ids), atol=2e-5)


def test_bfloat16_log_probabilities_agree_with_training_under_the_same_autocast(network: Decoder) -> None:
    prompts = some_prompts(6)
    found = Engine(network, None, compute_dtype=torch.bfloat16).generate(prompts, PLAIN)
    for prompt, completion in zip(prompts, found, strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            trained = uncached(network, prompt, completion.ids)
        assert torch.allclose(completion.logprobs, trained, atol=0.1, rtol=0)


def test_a_network_that_moved_gets_a_new_cache(make_decoder: Callable[..., Decoder]) -> None:
    network = make_decoder()
    engine = Engine(network, None, reuse_prefix=True)
    engine.generate([[1, 2, 3]], PLAIN)
    network.double()
    found = engine.generate([[1, 2, 3]], PLAIN)[0]
    assert engine._batch.memory.cache is not None
    assert engine._batch.memory.cache.keys.dtype == torch.float64
    assert torch.allclose(found.logprobs, uncached(network, [1, 2, 3], found.ids), atol=1e-5)


# -- prompts found in the cache ---------------------------------------------------------------------------------------


def run_one(engine: Engine, prompt: list[int], setting: SamplingSettings = GREEDY) -> tuple[Request, Completion]:
    request, events = engine.open(prompt, setting)
    for _ in events:
        pass
    return request, request.completion()


def test_a_conversation_that_goes_on_computes_only_what_is_new(network: Decoder) -> None:
    engine, fresh = Engine(network, None, slots=3, reuse_prefix=True), Engine(network, None)
    prompt: list[int] = [1, 2, 3, 4, 5]
    kept = 0
    for turn in range(3):
        request, found = run_one(engine, prompt)
        assert same(found, fresh.generate([prompt], GREEDY)[0])
        assert request.reused == kept
        kept = len(prompt) + len(found.ids) - 1
        prompt = [*prompt, *found.ids, 9, 10 + turn]
    branch = [*prompt[:7], 20, 21]
    request, found = run_one(engine, branch)
    assert request.reused == 7
    assert same(found, fresh.generate([branch], GREEDY)[0])
    again, _ = run_one(engine, prompt)  # the branch took another slot, so the first conversation is still there
    assert again.reused == kept
    same_prompt, found = run_one(engine, branch)
    assert same_prompt.reused == len(branch) - 1
    assert same(found, fresh.generate([branch], GREEDY)[0])


def test_kept_keys_are_forgotten_when_the_weights_change(
    make_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_a_change() -> tuple[Completion, Completion]:
        network = make_decoder()
        engine = Engine(network, None, reuse_prefix=True)
        engine.generate([[1, 2, 3, 4]], PLAIN)
        with torch.no_grad():
            network.embedding.weight.mul_(-1.5)
        return engine.generate([[1, 2, 3, 4]], PLAIN)[0], Engine(network, None).generate([[1, 2, 3, 4]], PLAIN)[0]

    assert same(*after_a_change())
    monkeypatch.setattr(SlotCache, "forget_old_weights", lambda _: None)  # negative control
    assert not same(*after_a_change())


# -- nothing leaks ----------------------------------------------------------------------------------------------------

SHORT = SamplingSettings(max_new_tokens=6, stop_ids=(7, 8), seed=0)
FAMILY = [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9], [6], [5, 4, 3, 2, 1, 0, 9, 11, 12], [1, 2, 3, 4, 5, 13, 14]]

Action = tuple[str, int]
actions = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, len(FAMILY) - 1)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("step"), st.integers(1, 3)),
    ),
    max_size=120,
)


@pytest.mark.parametrize("reuse_prefix", [False, True])
def test_slots_never_leak_over_random_arrivals_and_cancellations(network: Decoder, reuse_prefix: bool) -> None:
    alone = [Engine(network, None, slots=1).generate([prompt], SHORT, [i])[0].ids for i, prompt in enumerate(FAMILY)]

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(actions)
    def check(script: list[Action]) -> None:
        engine = Engine(network, None, slots=3, reuse_prefix=reuse_prefix)
        told: list[tuple[int, Request, list[TokenEvent]]] = []
        for kind, number in script:
            if kind == "arrive":
                events: list[TokenEvent] = []
                request = engine.request(FAMILY[number], SHORT, number, events.append)
                engine.enqueue(request)
                told.append((number, request, events))
            elif kind == "cancel" and told:
                engine.cancel(told[number % len(told)][1])
            elif kind == "step":
                for _ in range(number):
                    engine.step()
            unfinished = sum(request.finish_reason is None for _, request, _ in told)
            assert engine.active + engine.waiting == unfinished
            assert engine.active <= 3
        while engine.step():
            pass
        assert (engine.active, engine.waiting) == (0, 0)
        for number, request, events in told:
            assert [event.finish_reason for event in events if event.finish_reason] == [request.finish_reason]
            assert events[-1].finish_reason == request.finish_reason
            assert [event.id for event in events if event.id is not None] == request.ids
            if request.finish_reason == "cancelled":
                assert request.ids == alone[number][: len(request.ids)]
            else:
                assert request.ids == alone[number]

    check()


def test_after_a_failed_forward_everyone_knows_and_the_slots_are_free(
    make_decoder: Callable[..., Decoder],
) -> None:
    network = make_decoder()
    engine = Engine(network, None, slots=2)
    right = engine.generate(some_prompts(3), PLAIN)
    told: list[list[TokenEvent]] = [[], [], []]
    for events, prompt in zip(told, some_prompts(3), strict=True):
        engine.enqueue(engine.request(prompt, PLAIN, 0, events.append))
    engine.step()

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    handle = network.final_norm.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.step()
    assert (engine.active, engine.waiting) == (0, 0)
    assert all(events[-1].finish_reason == "error" and events[-1].error is not None for events in told)
    handle.remove()
    assert all(map(same, engine.generate(some_prompts(3), PLAIN), right))


@pytest.mark.parametrize("reuse_prefix", [False, True])
@pytest.mark.parametrize("poison", [[60, 1], [1, 60, 2], [1, 2]], ids=["prompt", "middle", "reply"])
def test_a_request_whose_logits_are_not_numbers_ends_alone_and_leaves_its_slot_clean(
    make_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch, reuse_prefix: bool, poison: list[int]
) -> None:
    """Token 60 makes everything behind it NaN; it stands in the prompt, or a bias has the reply begin with it."""
    setting = SamplingSettings(max_new_tokens=9, stop_ids=(), seed=1, logit_bias={60: -1e6})
    sick = SamplingSettings(max_new_tokens=9, stop_ids=(), seed=1, logit_bias={60: 1e6})
    healthy = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]

    def told() -> tuple[list[str], list[list[int]], list[list[int]]]:
        network = make_decoder()
        alone = [Engine(network, None).generate([prompt], setting)[0].ids for prompt in healthy]
        network.embedding.register_forward_hook(
            lambda _module, arguments, found: found.masked_fill((arguments[0] == 60)[..., None], torch.nan)
        )
        engine = Engine(network, None, slots=4, reuse_prefix=reuse_prefix)
        requests = [engine.request(prompt, setting, default_seeds(setting, 1)[0]) for prompt in healthy]
        requests.append(engine.request(poison, sick, 0))
        for request in requests:
            engine.enqueue(request)
        while engine.step():
            pass
        assert (engine.active, engine.waiting) == (0, 0)
        # The slots are used again; beside a long prompt the forward spans more of them than a short one has written.
        prompts = [[1], [2, 3, 4, 5, 6, 7], [3], [4]]
        after = engine.generate(prompts, setting)
        right = Engine(make_decoder(), None).generate(prompts, setting)
        assert [found.ids for found in after] == [found.ids for found in right]
        return [r.finish_reason or "" for r in requests], [r.ids for r in requests], alone

    reasons, ids, alone = told()
    assert reasons == ["length", "length", "length", "error"]
    assert ids[:3] == alone
    monkeypatch.setattr(SlotCache, "wipe", lambda *_: None)  # negative control: what is left there breaks the next
    with pytest.raises((GenerationError, AssertionError)):
        told()


def test_a_request_cancelled_from_inside_a_step_harms_nobody(network: Decoder) -> None:
    """As when the garbage collector closes a stream at any moment, or a reader cancels as soon as it is told."""
    engine, told = Engine(network, None, slots=4), list[Request]()
    alone = engine.generate([[1, 2]], GREEDY)[0].ids
    requests = [engine.request([1, 2], GREEDY, 0, lambda _: engine.cancel(told[0])) for _ in range(4)]
    told.append(requests[2])
    for request in requests:
        engine.enqueue(request)
    while engine.step():
        pass
    assert [request.finish_reason == "cancelled" for request in requests] == [False, False, True, False]
    assert [request.ids for request in requests if request is not requests[2]] == [alone] * 3


def test_threads_may_share_an_engine(network: Decoder) -> None:
    engine = Engine(network, None, slots=2)
    prompts = some_prompts(6)
    alone = [Engine(network, None).generate([prompt], PLAIN)[0] for prompt in prompts]
    found: dict[int, Completion] = {}

    def work(index: int) -> None:
        found[index] = engine.generate([prompts[index]], PLAIN)[0]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(found[index], alone[index]) for index in range(6))
