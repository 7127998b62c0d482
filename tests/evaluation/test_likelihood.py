"""Continuations scored in batches against one forward each, and the rule about where a continuation begins: the harness's,
and what it leaves open where a token lies across the border."""

from __future__ import annotations

import pytest
import torch

from duihua.evaluation.language_model import Counted, DecoderModel
from duihua.evaluation.likelihood import encode_pairs, likelihoods
from duihua.evaluation.task_questions import TaskItem
from duihua.evaluation.tasks import ask, task_figures
from duihua.models.counts.ngram import NGram
from duihua.text.words import WordVocabulary

REQUESTS = [
    ("The cat", " sat on the mat."),
    ("The cat", " ran."),
    ("The cat ", "sat"),
    ("", "The dog"),
    ("我爱", "你"),
    ("the hill; the sun shines on the water. " * 4, " Water flows down."),
]
ACROSS = [("The ca", "t"), ("The ca", "t sat"), ("The ca", "n"), ("The ca", " is")]
"""One token of the whole is "cat" with its space, and of the context alone none is."""


def slow(model: DecoderModel, front: list[int], continuation: list[int]) -> tuple[float, bool]:
    """One forward for one request, as the definition says it."""
    ids = [*front, *continuation][-(24 + 1) :]
    with torch.no_grad():
        logs = model.network(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    places = range(len(ids) - 1 - len(continuation), len(ids) - 1)
    total = sum(float(logs[place, ids[place + 1]]) for place in places)
    return total, all(int(logs[place].argmax()) == ids[place + 1] for place in places)


def harness_rule(model: DecoderModel, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The rule in the harness's words: trailing spaces move over; encode the whole, and cut where the context alone ends."""
    if context == "":
        return [model.start_id], model.encode([continuation])[0]
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole, alone = model.encode([context + continuation, context])
    return alone, whole[len(alone) :]


def test_batches_equal_one_forward_for_each_request(decoder: DecoderModel) -> None:
    for request, found in zip(REQUESTS, likelihoods(decoder, REQUESTS), strict=True):
        front, continuation = harness_rule(decoder, *request)
        total, greedy = slow(decoder, front, continuation)
        assert found.log_likelihood == pytest.approx(total, rel=1e-5)
        assert found.greedy == greedy
        assert found.tokens == len(continuation)
        assert found.cut == max(0, len(front) + len(continuation) - 25)
    assert likelihoods(decoder, REQUESTS)[-1].cut > 0


def test_greedy_is_what_the_model_would_write(decoder: DecoderModel) -> None:
    ids = decoder.encode(["The cat sat"])[0]
    for _ in range(3):
        with torch.no_grad():
            ids.append(int(decoder.network(torch.tensor([ids]))[0, -1].argmax()))
    text = decoder.bundle.tokenizer.decode(ids)
    continuation = text.removeprefix("The cat sat")
    if decoder.encode([text])[0] == ids:  # random weights may write ids that no text is encoded as
        assert likelihoods(decoder, [("The cat sat", continuation)])[0].greedy
    assert not likelihoods(decoder, [("The cat sat", " zzz")])[0].greedy


def encode_pair(model: DecoderModel, request: tuple[str, str]) -> tuple[list[int], list[int]]:
    """The ids of one request by itself."""
    (pair,) = encode_pairs(model, [request])
    return pair.front, pair.continuation


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_border_is_the_harness_s(decoder: DecoderModel, request_: tuple[str, str]) -> None:
    assert encode_pair(decoder, request_) == harness_rule(decoder, *request_)


def test_encoding_the_two_parts_apart_would_give_other_ids(decoder: DecoderModel) -> None:
    requests = [*REQUESTS[:3], *ACROSS]
    apart = [tuple(decoder.encode(list(request))) == encode_pair(decoder, request) for request in requests]
    assert not all(apart)


def log_probability(model: DecoderModel, text: str) -> float:
    """log P(text) after the separator, one token at a time: every token of it, each by a forward of its own."""
    ids = [model.start_id, *model.encode([text])[0]]
    total = 0.0
    with torch.no_grad():
        for place in range(1, len(ids)):
            total += float(model.network(torch.tensor([ids[:place]]))[0, -1].log_softmax(-1)[ids[place]])
    return total


def test_a_continuation_that_merges_into_the_context_is_not_certain(decoder: DecoderModel) -> None:
    """ "The ca" + "t" is encoded as "The cat", which has as many ids as "The ca" or fewer: the harness's cut leaves none."""
    assert harness_rule(decoder, *ACROSS[0])[1] == []  # so its rule alone would call the answer certain
    (found,) = likelihoods(decoder, ACROSS[:1])
    front, continuation = encode_pair(decoder, ACROSS[0])
    assert [*front, *continuation] == decoder.encode(["The cat"])[0]
    assert front == decoder.encode(["The"])[0]
    assert found.log_likelihood == pytest.approx(slow(decoder, front, continuation)[0], rel=1e-5)
    assert found.log_likelihood < 0 and found.tokens == len(continuation) > 0 and found.moved > 0


def test_answers_to_one_context_differ_by_what_the_whole_texts_differ(decoder: DecoderModel) -> None:
    """Independently: log P of each whole text, token by token. With the border of each answer by itself, those that no token
    crosses are not charged for the end of the context, and the difference is another."""
    made = likelihoods(decoder, ACROSS, separator=True)
    wholes = [log_probability(decoder, context + continuation) for context, continuation in ACROSS]
    for found, whole in zip(made, wholes, strict=True):
        assert found.log_likelihood - made[0].log_likelihood == pytest.approx(whole - wholes[0], abs=1e-4)
    assert len({found.moved for found in made}) == 1
    each = [likelihoods(decoder, [request], separator=True)[0].log_likelihood for request in ACROSS]
    assert each[3] - each[0] != pytest.approx(wholes[3] - wholes[0], abs=1e-2)  # control: the border of each by itself
    (item,) = ask(decoder, [TaskItem(tuple(ACROSS), 0)], separator=True)
    assert item.chosen == max(range(len(ACROSS)), key=wholes.__getitem__)
    assert task_figures("t", [item]).to_dict()["borders_moved"] == 1


def test_a_border_moves_for_no_other_context(decoder: DecoderModel) -> None:
    alone = likelihoods(decoder, REQUESTS)
    together = likelihoods(decoder, [*ACROSS, *REQUESTS])[len(ACROSS) :]
    assert [found.moved for found in together] == [0] * len(REQUESTS)
    for one, other in zip(alone, together, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-5)


def test_a_word_that_the_border_cuts_is_scored_whole() -> None:
    """Words know it too: "x" + "b" is the one word xb, which is unknown, and no b; "c" + " b" are two."""
    vocabulary = WordVocabulary.train(["a b", "a b", "a c"])
    a, b, c = (vocabulary.encode(word)[0] for word in "abc")
    fit = NGram.fit([[a, b, 1], [a, c, 1]], 2, vocabulary.vocabulary_size, 1)
    counted = Counted(fit, vocabulary, "c")
    merged, apart = encode_pairs(counted, [("a x", "b"), ("a c", " b")])
    assert (merged.front, merged.continuation, merged.moved) == ([a], [vocabulary.unknown_id], 1)
    assert (apart.front, apart.continuation, apart.moved) == ([a, c], [b], 0)
    (found,) = likelihoods(counted, [("a c", " b")])
    assert found.log_likelihood == pytest.approx(float(fit.log_probabilities([a, c, b])[-1]))


def test_the_separator_changes_the_score_only_where_it_is_asked_for(decoder: DecoderModel) -> None:
    plain, separated = (likelihoods(decoder, REQUESTS[:1], separator=each)[0] for each in (False, True))
    front, continuation = harness_rule(decoder, *REQUESTS[0])
    assert separated.log_likelihood == pytest.approx(
        slow(decoder, [decoder.start_id, *front], continuation)[0], rel=1e-5
    )
    assert separated.log_likelihood != pytest.approx(plain.log_likelihood, rel=1e-4)


def test_an_empty_continuation_is_certain(decoder: DecoderModel) -> None:
    assert likelihoods(decoder, [("The cat", "")])[0].log_likelihood == 0.0
    assert likelihoods(decoder, [("The cat ", "")])[0].log_likelihood < 0.0  # the space is the continuation's
