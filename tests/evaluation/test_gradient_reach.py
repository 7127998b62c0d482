"""The gradient dies in the RNN and lives in the LSTM, at the orders of magnitude that are known; autograd agrees with hand."""

from __future__ import annotations

import math

import pytest
import torch

from duihua.evaluation.gradient_reach import gradient_reach, reach_of
from duihua.nn.recurrent import RecurrentLayer


def order(value: float) -> float:
    return math.log10(value)


def test_orders_of_magnitude_at_10_50_and_100_steps() -> None:
    rnn, lstm = gradient_reach("rnn").at(), gradient_reach("lstm", forget_bias=1.0).at()
    for found, expected in ((rnn, (2e-3, 2e-13)), (lstm, (2e-2, 2e-5, 5e-9))):
        for lag, value in zip(("10", "50", "100"), expected, strict=False):
            assert order(found[lag]) == pytest.approx(order(value), abs=0.5)
    assert rnn["100"] < 1e-20  # nothing


def test_without_an_open_forget_gate_the_lstm_loses_it_as_the_rnn_does() -> None:
    """The control: the cell alone is not what helps."""
    closed = gradient_reach("lstm", forget_bias=-1.0, seeds=range(3)).at()
    assert closed["50"] < 1e-3 * gradient_reach("lstm", forget_bias=1.0, seeds=range(3)).at()["50"]


def test_a_larger_recurrent_matrix_explodes_without_its_tanh() -> None:
    layer = RecurrentLayer("rnn", 1, 1).double()
    with torch.no_grad():
        layer.recurrent_weight.fill_(2.0)
        layer.input_bias.zero_()
        layer.recurrent_bias.zero_()
    x = torch.zeros(1, 11, 1, dtype=torch.float64)  # h stays 0, where the slope of tanh is 1
    norms = reach_of(layer, x, torch.ones(1, 1, dtype=torch.float64))
    assert norms == pytest.approx([2.0**k for k in range(11)])


def test_the_last_step_has_the_direction_itself() -> None:
    found = gradient_reach("lstm", steps=5, seeds=(0,))
    assert found.norms[0] == pytest.approx(1.0)
    assert len(found.norms) == 5
    assert found.to_mapping()["forget_bias"] == 1.0
