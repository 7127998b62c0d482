"""Running a network on tensors that have shapes and no content, so that shapes, work and memory are read off the network
itself, whatever variant it is, and a model of any size costs neither memory nor time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from duihua.models.classifier import Classifier
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder


def build_imagined(config: DecoderConfig) -> Decoder:
    """A decoder that holds no numbers."""
    with torch.device("meta"):
        return Decoder(config)


def trunk(network: nn.Module) -> Decoder:
    """The decoder inside a model with another head, or the decoder itself."""
    found = network if isinstance(network, Decoder) else network.decoder
    assert isinstance(found, Decoder)
    return found


class _Hidden(nn.Module):
    """A decoder up to its final norm."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, token_ids_bt: Tensor) -> Tensor:
        return self.decoder.hidden(token_ids_bt)


class Imagined:
    """A network whose tensors are replaced by imagined ones on a CPU while it is called. tensors: those, by name; a tied
    matrix is one tensor under two names."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        made: dict[int, Tensor] = {}
        named = chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
        self.tensors: dict[str, Tensor] = {}
        for name, tensor in named:
            if id(tensor) not in made:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                made[id(tensor)] = empty.requires_grad_(tensor.requires_grad)
            self.tensors[name] = made[id(tensor)]

    def forward(self, batch: int, time: int) -> None:
        """The whole forward pass of (batch, time) token ids."""
        ids_bt = torch.zeros(batch, time, dtype=torch.long)
        rows = (torch.arange(batch)[:, None],) if isinstance(self.network, Classifier) else ()
        functional_call(self.network, self.tensors, (ids_bt, *rows))

    def hidden(self, batch: int, time: int) -> None:
        """The forward pass of a Decoder up to its final norm."""
        assert isinstance(self.network, Decoder)
        tensors = {f"decoder.{name}": tensor for name, tensor in self.tensors.items()}
        functional_call(_Hidden(self.network), tensors, (torch.zeros(batch, time, dtype=torch.long),))


@contextmanager
def imagined(network: nn.Module) -> Iterator[Imagined]:
    """Inside the block every tensor that is made has a shape and no content."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield Imagined(network)
