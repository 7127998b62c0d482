from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from duihua.engine.randomness import sample_seed
from duihua.engine.sampling import (
    Row,
    SamplingBatch,
    SamplingSettings,
    draw,
    penalise,
    require_plain,
    truncation_mask,
)
from duihua.errors import GenerationError

ChiSquare = Callable[[torch.Tensor, torch.Tensor], float]

LOGITS = [2.0, 1.1, 0.4, -0.3, 1.6, -1.2, 0.9, 0.0, -2.5, 0.7]
PROMPT, GENERATED, ENDS = [0, 5, 7], [4, 4, 1], (0, 6)


def reference(
    setting: SamplingSettings, logits: Sequence[float], prompt: Sequence[int], generated: Sequence[int]
) -> torch.Tensor:
    """The distribution by the definitions in settings.py, one token at a time in plain Python."""
    counts = Counter(generated)
    values = []
    for token, logit in enumerate(logits):
        seen = token in prompt or token in counts
        factor = 1 / setting.repetition_penalty if logit > 0 else setting.repetition_penalty
        value = logit * factor if seen else logit
        value -= setting.presence_penalty * (counts[token] > 0) + setting.frequency_penalty * counts[token]
        value += setting.logit_bias.get(token, 0.0)
        held_back = token in ENDS and len(generated) < setting.min_new_tokens
        values.append(-math.inf if held_back else value / setting.temperature)
    weights = [math.exp(value) for value in values]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    kept = order[: setting.top_k] if setting.top_k else list(order)
    total, so_far, nucleus = sum(weights[token] for token in kept), 0.0, []
    for token in kept:
        nucleus.append(token)
        so_far += weights[token] / total
        if so_far >= setting.top_p:
            break
    kept = [token for token in nucleus if weights[token] >= setting.min_p * weights[order[0]]]
    total = sum(weights[token] for token in kept)
    return torch.tensor([weights[token] / total if token in kept else 0.0 for token in range(len(weights))])


def sampled(setting: SamplingSettings, draws: int) -> torch.Tensor:
    """Counts of `draws` tokens, each of its own sample."""
    rows = [Row(setting, sample_seed(0, 0, 0, index), ENDS, PROMPT, GENERATED) for index in range(draws)]
    logits = torch.tensor(LOGITS).expand(draws, -1)
    tokens = SamplingBatch(rows, len(LOGITS), "cpu").sample(logits).tokens
    return torch.bincount(torch.tensor(tokens), minlength=len(LOGITS))


CASES: list[dict[str, Any]] = [
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 3},
    {"top_p": 0.7},
    {"min_p": 0.25},
    {"repetition_penalty": 1.6},
    {"presence_penalty": 0.9},
    {"frequency_penalty": 0.6},
    {"logit_bias": {3: 2.0, 0: -100.0}},
    {"min_new_tokens": 4},
    {"temperature": 0.8, "top_k": 6, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2, "presence_penalty": 0.3},
]


@pytest.mark.parametrize("changes", CASES, ids="+".join)
def test_each_setting_draws_from_its_reference_distribution(changes: dict[str, Any], chi_square: ChiSquare) -> None:
    setting, draws = replace(SamplingSettings(), **changes), 20_000
    counts = sampled(setting, draws)
    assert chi_square(counts, reference(setting, LOGITS, PROMPT, GENERATED) * draws) > 1e-3
    # Negative control: the same counts are not those of a sampler that overlooks any one of the settings.
    for name in changes:
        overlooked = replace(setting, **{name: getattr(SamplingSettings(), name)})
        if name == "min_p" and len(changes) > 1:
            continue  # too weak beside the others to be seen in the counts
        assert chi_square(counts, reference(overlooked, LOGITS, PROMPT, GENERATED) * draws) < 1e-6, name


def test_truncation_leaves_what_transformers_leaves() -> None:
    warpers = pytest.importorskip("transformers.generation.logits_process")
    generator = torch.Generator().manual_seed(0)
    for top_k, top_p, min_p in [(5, 1.0, 0.0), (0, 0.8, 0.0), (0, 1.0, 0.1), (7, 0.6, 0.0), (20, 0.95, 0.05)]:
        logits = torch.randn(50, 40, generator=generator) * 3
        theirs = logits
        if top_k:
            theirs = warpers.TopKLogitsWarper(top_k)(None, theirs)
        if top_p < 1.0:
            theirs = warpers.TopPLogitsWarper(top_p)(None, theirs)
        if min_p:
            theirs = warpers.MinPLogitsWarper(min_p)(None, theirs)
        ours = truncation_mask(
            logits.softmax(-1), torch.full((50,), top_k), torch.full((50,), top_p), torch.full((50,), min_p)
        )
        assert torch.equal(ours, theirs.isfinite())


def test_repetition_penalty_gives_the_logits_of_transformers() -> None:
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(0, 30, (4, 9), generator=torch.Generator().manual_seed(2))
    seen = torch.zeros(4, 30, dtype=torch.bool).scatter(1, ids, True)
    none = torch.zeros(4)
    ours = penalise(
        logits, seen, torch.zeros(4, 30), repetition_b=torch.full((4,), 1.3), presence_b=none, frequency_b=none
    )
    assert torch.equal(ours, warpers.RepetitionPenaltyLogitsProcessor(1.3)(ids, logits.clone()))


def test_penalties_by_hand() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, 1.0]])
    counts = torch.tensor([[0.0, 1.0, 3.0, 0.0]])
    seen = torch.tensor([[True, True, True, False]])
    found = penalise(
        logits,
        seen,
        counts,
        repetition_b=torch.tensor([2.0]),
        presence_b=torch.tensor([0.5]),
        frequency_b=torch.tensor([0.25]),
    )
    # 2/2; -2*2 - 0.5 - 0.25; 1/2 - 0.5 - 0.75; untouched
    assert found.tolist() == [[1.0, -4.75, -0.75, 1.0]]


def test_tokens_of_the_reply_are_counted_as_they_come() -> None:
    """Greedy with a presence penalty larger than all gaps says every token once, likeliest first."""
    setting = SamplingSettings(temperature=0.0, presence_penalty=100.0)
    batch = SamplingBatch([Row(setting, 0)], 4, "cpu")
    logits = torch.tensor([[1.0, 4.0, 2.0, 3.0]])
    assert [batch.sample(logits).tokens[0] for _ in range(4)] == [1, 3, 2, 0]
    without = SamplingBatch([Row(SamplingSettings(temperature=0.0), 0)], 4, "cpu")  # negative control
    assert [without.sample(logits).tokens[0] for _ in range(4)] == [1, 1, 1, 1]


def test_greedy_takes_the_likeliest_and_of_equals_the_first() -> None:
    batch = SamplingBatch([Row(SamplingSettings(temperature=0.0), 9)] * 2, 4, "cpu")
    assert batch.sample(torch.tensor([[0.0, 2.0, 2.0, 1.0], [5.0, 1.0, 1.0, 6.0]])).tokens == [1, 3]


def test_top_k_keeps_exactly_k_of_equals_and_the_likeliest_always_stays() -> None:
    equal = torch.full((1, 5), 0.2)
    one = torch.ones(1)
    assert truncation_mask(equal, torch.tensor([2]), one, 0 * one).tolist() == [[True, True, False, False, False]]
    tiny = torch.tensor([1e-9])
    assert truncation_mask(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([0]), tiny, 0 * one).tolist() == [
        [False, True, False]
    ]
    assert truncation_mask(torch.tensor([[0.4, 0.6]]), torch.tensor([0]), one, one).tolist() == [[False, True]]


def test_a_nucleus_holds_the_token_that_reaches_top_p() -> None:
    probabilities, zero = torch.tensor([[0.5, 0.3, 0.15, 0.05]]), torch.zeros(1)
    for top_p, size in [(0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.96, 4), (1.0, 4)]:
        mask = truncation_mask(probabilities, torch.tensor([0]), torch.tensor([top_p]), zero)
        assert mask.sum() == size, top_p


@given(
    st.lists(st.sampled_from([0.0, 1e-30, 0.1, 0.5, 1.0, 3.0]), min_size=1, max_size=8).filter(any),
    st.sampled_from([0.0, 2.0**-52, 0.25, 0.5, 0.999, 1 - 2.0**-52]),
)
def test_a_token_without_probability_is_never_drawn(weights: list[float], uniform: float) -> None:
    token = int(draw(torch.tensor([weights]), torch.tensor([uniform], dtype=torch.float64))[0])
    assert weights[token] > 0


def test_inverse_cdf_by_hand() -> None:
    probabilities = torch.tensor([[0.25, 0.0, 0.5, 0.25]]).expand(5, -1)
    uniforms = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75], dtype=torch.float64)
    assert draw(probabilities, uniforms).tolist() == [0, 0, 2, 2, 3]


@pytest.mark.checklist
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_row_20_frequencies_match_the_recorded_log_probabilities(temperature: float, chi_square: ChiSquare) -> None:
    setting, draws = SamplingSettings(temperature=temperature), 20_000
    rows = [Row(setting, sample_seed(1, 0, 0, index)) for index in range(draws)]
    drawn = SamplingBatch(rows, len(LOGITS), "cpu").sample(torch.tensor(LOGITS).expand(draws, -1))
    counts = torch.bincount(torch.tensor(drawn.tokens), minlength=len(LOGITS))
    recorded = dict(zip(drawn.tokens, drawn.logprobs, strict=True))
    expected = torch.tensor([math.exp(recorded[token]) for token in range(len(LOGITS))]) * draws
    assert chi_square(counts, expected) > 1e-3
    # Negative control: log-probabilities recorded at another temperature than the sampler's.
    wrong = (torch.tensor(LOGITS) / (temperature * 1.2)).softmax(-1) * draws
    assert chi_square(counts, wrong) < 1e-6


def test_recorded_log_probabilities_are_the_models_own_at_the_temperature() -> None:
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(3))
    setting = SamplingSettings(temperature=0.5, top_k=2, repetition_penalty=3.0, logit_bias={1: 5.0}, top_logprobs=4)
    greedy = SamplingSettings(temperature=0.0, top_logprobs=2)
    rows = [Row(setting, 1, (), [0, 1]), Row(setting, 2, (), [2]), Row(greedy, 3)]
    drawn = SamplingBatch(rows, 12, "cpu").sample(logits)
    own = torch.stack([(logits[0] / 0.5).log_softmax(-1), (logits[1] / 0.5).log_softmax(-1), logits[2].log_softmax(-1)])
    assert drawn.top is not None
    for row, (token, logprob, top) in enumerate(zip(drawn.tokens, drawn.logprobs, drawn.top, strict=True)):
        assert logprob == pytest.approx(float(own[row, token]), abs=1e-5)
        expected, ids = own[row].topk(4 if row < 2 else 2)
        assert [pair[0] for pair in top] == ids.tolist()
        assert [pair[1] for pair in top] == pytest.approx(expected.tolist(), abs=1e-5)


COMPANY = [
    SamplingSettings(),
    SamplingSettings(temperature=0.0),
    SamplingSettings(temperature=0.7, top_p=0.9),
    SamplingSettings(top_k=3, min_p=0.1, presence_penalty=1.0, frequency_penalty=0.5),
    SamplingSettings(repetition_penalty=1.4, logit_bias={2: 1.5}, min_new_tokens=3),
    SamplingSettings(top_logprobs=5),
]


@settings(max_examples=30)
@given(st.permutations(range(len(COMPANY))), st.integers(0, 2**31))
def test_a_rows_tokens_are_bit_identical_in_any_company(order: list[int], seed: int) -> None:
    logits = torch.randn(4, len(COMPANY), 50, generator=torch.Generator().manual_seed(seed)) * 2
    rows = [Row(COMPANY[i], sample_seed(seed, 0, 0, i), ENDS, [1, 2, 3], []) for i in range(len(COMPANY))]
    together = SamplingBatch([rows[i] for i in order], 50, "cpu")
    alone = [SamplingBatch([row], 50, "cpu") for row in rows]
    for step in range(4):
        drawn = together.sample(logits[step, order])
        for place, i in enumerate(order):
            single = alone[i].sample(logits[step, i : i + 1])
            assert (drawn.tokens[place], drawn.logprobs[place]) == (single.tokens[0], single.logprobs[0])


@pytest.mark.parametrize("top_k", [10, 11, 2**63, 2**70])
def test_a_top_k_of_the_vocabulary_or_more_keeps_it_whole(top_k: int) -> None:
    def tokens(k: int) -> list[int]:
        rows = [Row(SamplingSettings(top_k=k), sample_seed(2, 0, 0, index)) for index in range(200)]
        return SamplingBatch(rows, len(LOGITS), "cpu").sample(torch.tensor(LOGITS).expand(200, -1)).tokens

    assert tokens(top_k) == tokens(0)
    assert tokens(9) != tokens(0)  # negative control: the least likely of ten is left out


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 9e-6])
def test_a_temperature_too_small_to_divide_by_is_greedy_and_leaves_its_company_alone(temperature: float) -> None:
    logits = torch.randn(2, 40, generator=torch.Generator().manual_seed(4)) * 5
    rows = [Row(SamplingSettings(temperature=0.0), 1), Row(SamplingSettings(), 2)]
    tiny = [Row(SamplingSettings(temperature=temperature, top_k=5), 1), Row(SamplingSettings(), 2)]
    assert SamplingBatch(tiny, 40, "cpu").sample(logits) == SamplingBatch(rows, 40, "cpu").sample(logits)
    with pytest.raises(GenerationError, match="temperature"):
        require_plain(SamplingSettings(temperature=temperature))
    # Negative control: a small temperature that can be divided by keeps its own log-probabilities.
    small = [Row(SamplingSettings(temperature=0.1), 1), Row(SamplingSettings(), 2)]
    assert SamplingBatch(small, 40, "cpu").sample(logits) != SamplingBatch(rows, 40, "cpu").sample(logits)
    require_plain(SamplingSettings(temperature=1e-5))


EXTREMES: list[dict[str, Any]] = [
    {"temperature": 1e9},
    {"repetition_penalty": 0.1},
    {"repetition_penalty": 10.0},
    {"presence_penalty": 1e9, "frequency_penalty": 1e9},
    {"presence_penalty": -1e9, "frequency_penalty": -1e9},
    {"logit_bias": {0: 1e9, 1: -1e9}},
]


@pytest.mark.parametrize("temperature", [1e-5, 1.0])
def test_settings_at_their_bounds_leave_logits_that_are_numbers(temperature: float) -> None:
    def highest(setting: SamplingSettings) -> float:
        batch = SamplingBatch([Row(setting, 0, ENDS, PROMPT, GENERATED)], len(LOGITS), "cpu")
        return float((batch.processed(torch.tensor([LOGITS])) / setting.temperature).max())

    for changes in EXTREMES:
        assert math.isfinite(highest(SamplingSettings(**{"temperature": temperature, "min_new_tokens": 4, **changes})))
    beyond = SamplingSettings(temperature=temperature)
    object.__setattr__(beyond, "repetition_penalty", 1e-44)  # negative control: what is refused would not be a number
    assert not math.isfinite(highest(beyond))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_logits_that_are_not_numbers_are_an_error_of_their_own_row_alone(wrong: float, temperature: float) -> None:
    setting = SamplingSettings(temperature=temperature, top_k=2, repetition_penalty=1.2, top_logprobs=1)
    logits = torch.tensor([[0.1, 2.0, 1.0]] * 3)
    logits[1, 2] = wrong
    drawn = SamplingBatch([Row(setting, seed) for seed in (1, 2, 3)], 3, "cpu").sample(logits)
    with pytest.raises(GenerationError, match="not numbers"):
        drawn.check(1)
    for row, seed in ((0, 1), (2, 3)):
        drawn.check(row)
        alone = SamplingBatch([Row(setting, seed)], 3, "cpu").sample(logits[row : row + 1])
        assert (drawn.tokens[row], drawn.logprobs[row]) == (alone.tokens[0], alone.logprobs[0])


def test_a_penalty_that_makes_logits_infinite_is_an_error_though_the_models_own_are_numbers() -> None:
    setting = SamplingSettings()
    object.__setattr__(setting, "repetition_penalty", 1e-44)  # which the settings themselves refuse
    drawn = SamplingBatch([Row(setting, 1, (), [0])], 3, "cpu").sample(torch.tensor([[0.1, 2.0, 1.0]]))
    with pytest.raises(GenerationError, match="not numbers"):
        drawn.check(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": 1e39},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e-44},
        {"repetition_penalty": 1e44},
        {"presence_penalty": 1e39},
        {"frequency_penalty": -1e39},
        {"logit_bias": {3: -1e39}},
        {"presence_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"logit_bias": {3: math.inf}},
        {"logit_bias": {-3: 1.0}},
        {"max_new_tokens": 0},
        {"min_new_tokens": 9, "max_new_tokens": 8},
        {"stop": ("",)},
        {"stop": "a"},
        {"top_logprobs": 21},
    ],
    ids=str,
)
def test_impossible_settings_name_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(GenerationError) as caught:
        SamplingSettings(**wrong)
    assert caught.value.where in wrong


@pytest.mark.checklist
@pytest.mark.parametrize("changes", [c for c in CASES if "temperature" not in c] + [{"temperature": 0.0}], ids=str)
def test_row_21_rollouts_refuse_what_changes_the_distribution(changes: dict[str, Any]) -> None:
    with pytest.raises(GenerationError) as caught:
        require_plain(replace(SamplingSettings(), **changes), where="ppo.sampling")
    assert all(name in caught.value.problem for name in changes)
    require_plain(SamplingSettings(temperature=0.7, max_new_tokens=9, stop_ids=(3,), seed=1))
