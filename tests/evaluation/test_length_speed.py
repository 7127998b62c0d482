"""Steps per second are measured for the models and lengths asked for, on networks of about one size. No time is asserted."""

from __future__ import annotations

from duihua.evaluation.length_speed import networks, step_times
from duihua.models.decoder import parameter_count


def test_every_model_and_length_is_measured() -> None:
    found = step_times((4, 8), batch=2, repeats=1, width=32)
    names = ["rnn", "rnn, written out", "lstm", "lstm, written out", "transformer"]
    assert [(each.model, each.length) for each in found] == [(name, length) for name in names for length in (4, 8)]
    assert all(each.seconds > 0 and each.to_mapping()["steps_per_second"] > 0 for each in found)


def test_lstm_and_transformer_are_of_about_one_size() -> None:
    sizes = {name: parameter_count(network) for name, network in networks().items()}
    assert 0.7 < sizes["transformer"] / sizes["lstm"] < 1.4
