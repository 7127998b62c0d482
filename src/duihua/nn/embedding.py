"""A table of vectors, one for each token or place.

Why not torch's own: on the meta device, where a network is built only to be filled from a file, torch's random start
imports its whole compiler (a second or two) to write numbers that nobody can read. This one leaves the table empty there.
"""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """torch's embedding, which draws no random numbers on the meta device."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()
