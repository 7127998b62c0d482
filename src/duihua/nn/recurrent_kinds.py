"""The kinds of recurrent cell and how many blocks of weights each has. No torch here: configs and help name them too."""

from __future__ import annotations

from typing import Literal, TypeAlias

CellKind: TypeAlias = Literal["rnn", "lstm", "gru"]

BLOCKS: dict[CellKind, int] = {"rnn": 1, "lstm": 4, "gru": 3}
"""Matrices that a layer has on each side (input and recurrent): what its parameters are a multiple of."""


def layer_parameters(cell: CellKind, inputs: int, width: int) -> int:
    """Parameters of one layer: blocks x e x (d + e + 2), the 2 for the two biases."""
    return BLOCKS[cell] * width * (inputs + width + 2)
