"""Text from a recurrent model: one token at a time equals reading all again; seeds, stops and limits hold."""

from __future__ import annotations

import torch

from duihua.engine.recurrent_text import continue_ids
from duihua.engine.settings import SamplingSettings
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig


def network() -> RecurrentLM:
    made = RecurrentLM(RecurrentConfig(vocabulary_size=13, end_id=1, cell="gru", width=8, layers=2)).initialise(0)
    with torch.no_grad():
        made.embedding.weight.mul_(20)  # so that its choices are clear
    return made


def test_greedy_text_with_the_state_carried_is_that_of_reading_all_again() -> None:
    model, prompt = network().eval(), [4, 7]
    made = continue_ids(model, prompt, SamplingSettings(temperature=0, max_new_tokens=12, stop_ids=()))
    read = [1, *prompt]
    for token in made:
        hidden, _ = model(torch.tensor([read]))
        assert int(model.logits(hidden[0, -1]).argmax()) == token
        read.append(token)
    assert len(made) == 12


def test_same_seed_same_text_and_another_seed_another() -> None:
    def text(seed: int) -> list[int]:
        return continue_ids(network(), [3], SamplingSettings(max_new_tokens=30, seed=seed, stop_ids=()))

    assert text(5) == text(5)
    assert text(5) != text(6)


def test_an_end_token_ends_it_and_is_given() -> None:
    free = continue_ids(network(), [3], SamplingSettings(max_new_tokens=30, seed=5, stop_ids=()))
    stopped = continue_ids(network(), [3], SamplingSettings(max_new_tokens=30, seed=5), stop_ids=[free[4]])
    assert stopped == free[: free.index(free[4]) + 1]
