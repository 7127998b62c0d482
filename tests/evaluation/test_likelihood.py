"""Continuations scored in batches against one forward each, and the harness's rule about where a continuation begins."""

from __future__ import annotations

import pytest
import torch

from duihua.evaluation.language_model import DecoderModel
from duihua.evaluation.likelihood import encode_pair, likelihoods

REQUESTS = [
    ("The cat", " sat on the mat."),
    ("The cat", " ran."),
    ("The ca", "t sat"),
    ("The cat ", "sat"),
    ("", "The dog"),
    ("我爱", "你"),
    ("the hill; the sun shines on the water. " * 4, " Water flows down."),
]


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


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_border_is_the_harness_s(decoder: DecoderModel, request_: tuple[str, str]) -> None:
    assert encode_pair(decoder, *request_) == harness_rule(decoder, *request_)


def test_encoding_the_two_parts_apart_would_give_other_ids(decoder: DecoderModel) -> None:
    apart = [
        tuple(decoder.encode(list(request))) == encode_pair(decoder, *request)
        for request in REQUESTS
        if request[0] != ""
    ]
    assert not all(apart)


def test_the_separator_changes_the_score_only_where_it_is_asked_for(decoder: DecoderModel) -> None:
    plain, separated = (likelihoods(decoder, REQUESTS[:1], separator=each)[0] for each in (False, True))
    front, continuation = harness_rule(decoder, *REQUESTS[0])
    assert separated.log_likelihood == pytest.approx(
        slow(decoder, [decoder.start_id, *front], continuation)[0], rel=1e-5
    )
    assert separated.log_likelihood != pytest.approx(plain.log_likelihood, rel=1e-4)


def test_an_empty_continuation_is_certain(decoder: DecoderModel) -> None:
    assert likelihoods(decoder, [("The cat", "")])[0].log_likelihood == 0.0
