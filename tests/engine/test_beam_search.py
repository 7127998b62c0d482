from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.engine.beam_search import Hypothesis, SearchStoppedError, beam_search, greedy_stream
from duihua.engine.beam_settings import USUAL_ALPHA, BeamSettings, LengthPenalty
from duihua.errors import GenerationError
from duihua.models.recurrent_translator import RecurrentTranslator
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.transformer import Transformer, TransformerState
from duihua.models.transformer_config import TransformerConfig
from duihua.models.translation_bundle import TranslatorNetwork
from duihua.models.translator import pad_rows

SOURCES = [[5, 6, 7, 2], [4, 2], [8, 9, 10, 11, 12, 13, 2], [6, 6, 2], [13, 5, 9, 2]]


def random_weights(network: TranslatorNetwork, seed: int, scale: float) -> None:
    """Random everywhere, with an output layer of its own that is large enough for clear and for close calls."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn * scale if weight.ndim > 1 else float("norm.weight" in name) + 0.1 * drawn)
        network.head.weight.copy_(torch.randn(network.head.weight.shape, generator=generator) * 0.6)


def transformer(vocabulary: int = 20, seed: int = 0, **changes: Any) -> Transformer:
    shape = {"width": 16, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "feed_forward_width": 24}
    config = TransformerConfig(
        vocabulary_size=vocabulary, **(shape | {"most_tokens": 64, "tied_embeddings": "none"} | changes)
    )
    network = Transformer(config)
    random_weights(network, seed, 0.5)
    return network.eval()


def recurrent(vocabulary: int = 20, seed: int = 0, **changes: Any) -> RecurrentTranslator:
    shape = {"width": 12, "hidden_width": 10, "most_tokens": 64, "tied_embeddings": "none"}
    config = RecurrentTranslatorConfig(vocabulary_size=vocabulary, **(shape | changes))
    network = RecurrentTranslator(config)
    random_weights(network, seed, 1.0)
    return network.eval()


def networks(vocabulary: int = 20, seed: int = 0) -> list[TranslatorNetwork]:
    return [
        transformer(vocabulary, seed),
        transformer(vocabulary, seed, norm_place="pre", positions="learned"),
        recurrent(vocabulary, seed),
        recurrent(vocabulary, seed, attention="none", cell="lstm", layers=2),
        recurrent(vocabulary, seed, attention="general", cell="rnn"),
    ]


def log_probability(network: TranslatorNetwork, source: list[int], ids: tuple[int, ...]) -> float:
    """Of a translation and its end, in one pass."""
    rows, mask = pad_rows([source], 3)
    target = torch.tensor([[1, *ids]])
    with torch.no_grad():
        each = network(rows, mask, target)[0].log_softmax(-1)
    return float(each.gather(1, torch.tensor([[*ids, 2]]).t()).sum())


def close(found: list[Hypothesis], expected: list[Hypothesis]) -> bool:
    return [one.ids for one in found] == [one.ids for one in expected] and all(
        math.isclose(a.score, b.score, abs_tol=1e-4) for a, b in zip(found, expected, strict=True)
    )


# -- the best is found ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", list(USUAL_ALPHA))
@pytest.mark.parametrize("which", range(5))
def test_a_beam_as_wide_as_all_translations_finds_every_one_in_order(which: int, penalty: LengthPenalty) -> None:
    network, source = networks(6)[which], [4, 5, 5, 2]
    every = [ids for length in range(4) for ids in itertools.product((0, 4, 5), repeat=length)]  # 1 + 3 + 9 + 27
    settings = BeamSettings(beam=40, n_best=40, length_penalty=penalty, max_ratio=0, max_extra=4)
    scored = []
    for ids in every:
        total = log_probability(network, source, ids)
        scored.append(Hypothesis(ids, total / settings.penalty(len(ids) + 1), total))
    scored.sort(key=lambda one: one.score, reverse=True)
    found = beam_search(network, [source], settings)[0]
    assert len(found) == len(every) == 40
    assert {one.ids for one in found} == set(every)
    for one, best in zip(found, scored, strict=True):
        assert one.score == pytest.approx(best.score, abs=1e-4)
    assert found[0].ids == scored[0].ids


def test_greedy_search_misses_the_best_translation_of_some_networks() -> None:
    missed = 0
    for seed in range(8):
        network = transformer(6, seed)
        wide = BeamSettings(beam=40, max_ratio=0, max_extra=4, length_penalty="none")
        narrow = BeamSettings(beam=1, max_ratio=0, max_extra=4, length_penalty="none")
        best, greedy = (beam_search(network, [[4, 5, 2]], each)[0][0] for each in (wide, narrow))
        assert greedy.log_probability <= best.log_probability + 1e-5
        missed += greedy.log_probability < best.log_probability - 1e-3
    assert missed


@pytest.mark.parametrize("penalty", ["none", "average", "gnmt"])
def test_exact_stopping_never_gives_a_worse_score_than_stopping_early(penalty: LengthPenalty) -> None:
    network = transformer(20, 3)
    results = {
        stopping: beam_search(
            network, SOURCES, BeamSettings(beam=4, max_extra=8, length_penalty=penalty, stopping=stopping)
        )
        for stopping in ("full", "estimate", "exact")
    }
    for full, estimate, exact in zip(results["full"], results["estimate"], results["exact"], strict=True):
        assert exact[0].score >= estimate[0].score - 1e-5 and exact[0].score >= full[0].score - 1e-5


# -- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", range(5))
def test_log_probabilities_are_those_of_one_forward_pass(which: int) -> None:
    network = networks()[which]
    for source, found in zip(SOURCES, beam_search(network, SOURCES, BeamSettings(n_best=3, max_extra=8)), strict=True):
        assert len(found) == 3 and found[0].score >= found[1].score >= found[2].score
        for one in found:
            assert one.log_probability == pytest.approx(log_probability(network, source, one.ids), abs=1e-3)
            assert one.score == pytest.approx(one.log_probability / ((5 + len(one.ids) + 1) / 6) ** 0.6, abs=1e-5)


def test_a_search_whose_cache_is_not_reordered_has_other_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    network = transformer(norm_place="pre", positions="learned")

    def forgetful(state: TransformerState, rows: Tensor) -> None:
        original(state, rows - rows % 5 + torch.arange(len(rows)) % 5)  # sentences leave, beams stay where they are

    original = TransformerState.reorder
    monkeypatch.setattr(TransformerState, "reorder", forgetful)
    for source, found in zip(SOURCES, beam_search(network, SOURCES, BeamSettings(n_best=5)), strict=True):
        worst = max(abs(one.log_probability - log_probability(network, source, one.ids)) for one in found)
        assert worst > 1e-2


@pytest.mark.parametrize(
    ("penalty", "alpha", "expected"),
    [
        ("none", None, 1.0),
        ("average", None, 7.0),
        ("average", 0.5, 7**0.5),
        ("gnmt", None, 2.0**0.6),
        ("gnmt", 1.0, 2.0),
        ("opennmt", 1.0, 13 / 6),
    ],
)
def test_length_penalties_of_seven_tokens_by_hand(penalty: LengthPenalty, alpha: float | None, expected: float) -> None:
    assert BeamSettings(length_penalty=penalty, alpha=alpha).penalty(7) == pytest.approx(expected)


@pytest.mark.parametrize("make", [transformer, recurrent])
def test_coverage_is_wus_formula(make: Any) -> None:
    network = make()
    plain = beam_search(network, SOURCES, BeamSettings(n_best=5, max_extra=8))
    covered = beam_search(network, SOURCES, BeamSettings(n_best=5, max_extra=8, coverage=0.4))
    changed = 0
    for source, found, before in zip(SOURCES, covered, plain, strict=True):
        for one in found:
            rows, mask = pad_rows([source], 3)
            with torch.no_grad():
                weights = network.attention(rows, mask, torch.tensor([[1, *one.ids]]))[-1][0].mean(0)  # (t, s)
            bonus = 0.4 * float(weights.sum(0).clamp(max=1.0).log().sum())
            length = ((5 + len(one.ids) + 1) / 6) ** 0.6
            assert one.score == pytest.approx(one.log_probability / length + bonus, abs=1e-3)
        changed += [one.ids for one in found] != [one.ids for one in before]
    assert changed


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("coverage", [0.0, 0.3])
def test_many_at_once_are_what_they_are_one_by_one(which: int, coverage: float) -> None:
    network = networks()[which]
    settings = BeamSettings(n_best=2, coverage=coverage, max_extra=8)
    told: list[int] = []
    together = beam_search(network, SOURCES * 3, settings, advance=told.append)
    assert told == [15]
    in_batches = beam_search(network, SOURCES * 3, dataclasses.replace(settings, batch_sentences=4))
    for number, source in enumerate(SOURCES):
        alone = beam_search(network, [source], settings)[0]
        assert close(together[number], alone) and close(together[number + 10], alone)
        assert close(in_batches[number + 5], alone)


@pytest.mark.parametrize("which", range(5))
def test_a_beam_of_one_takes_the_likeliest_token_each_time(which: int) -> None:
    network = networks()[which]
    found = beam_search(network, SOURCES, BeamSettings(beam=1, max_extra=8))
    for source, hypotheses in zip(SOURCES, found, strict=True):
        rows, mask = pad_rows([source], 3)
        ids: list[int] = []
        while len(ids) + 1 < len(source) + 8:
            with torch.no_grad():
                logits = network(rows, mask, torch.tensor([[1, *ids]]))[0, -1]
            logits[[1, 3]] = -torch.inf
            if int(logits.argmax()) == 2:
                break
            ids.append(int(logits.argmax()))
        assert hypotheses[0].ids == tuple(ids)
        assert tuple(greedy_stream(network, source, BeamSettings(max_extra=8))) == tuple(ids)


# -- limits and guards ------------------------------------------------------------------------------------------------


def repeats(ids: tuple[int, ...], size: int) -> bool:
    grams = [ids[start : start + size] for start in range(len(ids) - size + 1)]
    return len(set(grams)) < len(grams)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_guard_lets_no_n_gram_be_written_twice(size: int) -> None:
    network = transformer(12, 1)
    with torch.no_grad():
        network.target_embedding.weight[2] = 0.0  # a rare end: long translations
    free, guarded = (
        beam_search(network, [[5, 6, 2], [7, 2]], BeamSettings(max_extra=12, no_repeat_ngram=each))
        for each in (0, size)
    )
    assert any(repeats(found[0].ids, size) for found in free)
    assert not any(repeats(found[0].ids, size) for found in guarded)
    streamed = tuple(greedy_stream(network, [5, 6, 2], BeamSettings(max_extra=12, no_repeat_ngram=size)))
    greedy = beam_search(network, [[5, 6, 2]], BeamSettings(beam=1, max_extra=12, no_repeat_ngram=size))
    assert streamed == greedy[0][0].ids and not repeats(streamed, size)


@pytest.mark.parametrize("which", range(5))
def test_at_its_longest_a_translation_ends_and_pays_for_it(which: int) -> None:
    network = networks()[which]
    for ratio, extra in ((0.0, 1), (0.5, 1), (1.0, 2)):
        settings = BeamSettings(max_ratio=ratio, max_extra=extra, n_best=5)
        for source, found in zip(SOURCES, beam_search(network, SOURCES, settings), strict=True):
            assert found
            for one in found:
                assert len(one.ids) + 1 <= max(1, int(ratio * len(source)) + extra)
                assert one.log_probability == pytest.approx(log_probability(network, source, one.ids), abs=1e-3)
    assert beam_search(network, [[5, 2]], BeamSettings(max_ratio=0.0, max_extra=1))[0][0].ids == ()


def test_pads_and_starts_are_never_written() -> None:
    network = transformer()
    with torch.no_grad():
        network.head.weight[[1, 3]] = network.head.weight[5] * 2.0
    for found in beam_search(network, SOURCES, BeamSettings(n_best=5)):
        assert not any({1, 3} & set(one.ids) for one in found)


def test_training_goes_on_where_it_was() -> None:
    network = transformer(dropout=0.5).train()
    first, second = (beam_search(network, SOURCES) for _ in range(2))
    assert network.training and first == second
    with pytest.raises(GenerationError, match="longer than the model's 64"):
        beam_search(network, [[5] * 65])
    assert network.training


def test_a_search_that_is_told_to_stop_makes_no_further_step(monkeypatch: pytest.MonkeyPatch) -> None:
    network, steps = transformer(), []
    right = network.step

    def step(ids: Tensor, state: TransformerState) -> Tensor:
        steps.append(len(ids))
        return right(ids, state)

    monkeypatch.setattr(network, "step", step)
    network.train()
    with pytest.raises(SearchStoppedError):
        beam_search(network, SOURCES, BeamSettings(beam=2), stop=lambda: len(steps) == 3)
    assert len(steps) == 3 and network.training
    assert len(beam_search(network, SOURCES, BeamSettings(beam=2))) == len(SOURCES)  # control: nobody stops it
    assert len(steps) > 6


def test_impossible_requests_are_refused_by_name() -> None:
    assert beam_search(transformer(), []) == []
    with pytest.raises(GenerationError, match="sentence 2: an empty source"):
        beam_search(transformer(), [[5, 2], []])
    wrong: list[dict[str, Any]] = [
        {"beam": 0},
        {"n_best": 6},
        {"length_penalty": "wu"},
        {"alpha": -1.0},
        {"coverage": -0.1},
        {"no_repeat_ngram": -1},
        {"max_extra": -1},
        {"stopping": "soon"},
        {"batch_sentences": 0},
    ]
    for each in wrong:
        with pytest.raises(GenerationError) as caught:
            BeamSettings(**each)
        assert caught.value.where == next(iter(each))
