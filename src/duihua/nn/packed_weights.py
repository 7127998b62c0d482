"""Weights laid out for oneDNN ahead of many products of a few rows each.

Why: oneDNN brings a weight into the order of its kernels in every call. Of a thousand rows nobody notices; of the two to
sixteen that an engine moves at a time, one for each reply, it takes as long as the product itself or longer (docs/log.md).
So whoever writes replies side by side lays the weights out once, for as long as that takes and no longer: torch's fused
optimizers write weights over without a trace, so that nobody could tell afterwards. It is a second copy of the weights, so
only networks of up to `MOST` bytes have it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from duihua.nn.products import Linear, by_rows, library, onednn, pays

MOST = 2**30
"""Bytes of the weights of a network that is laid out."""
SMALLEST = 500_000
"""Multiplications and additions below which the longer call costs more than it wins."""


@dataclass(frozen=True)
class PackedWeight:
    """A layer's weight as oneDNN wants it, and which weight that was: how often written over, and where in memory."""

    laid_out: Tensor
    version: int
    address: int

    @classmethod
    def of(cls, weight_oi: Tensor) -> PackedWeight:
        """Lay out a weight (o, i) in fp32 on the processor."""
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight_oi.detach(), None)
        return cls(laid_out, weight_oi._version, weight_oi.data_ptr())

    def is_of(self, weight_oi: Tensor) -> bool:
        """Whether it is still this weight, as far as it shows."""
        return weight_oi._version == self.version and weight_oi.data_ptr() == self.address

    def serves(self, x: Tensor, weight_oi: Tensor) -> bool:
        """Whether `product` gives x weight^T here: without gradients, where oneDNN multiplies."""
        return not torch.is_grad_enabled() and self.is_of(weight_oi) and pays(x, weight_oi, SMALLEST)

    def product(self, x: Tensor, bias_o: Tensor | None) -> Tensor:
        """x weight^T + bias, (..., i) -> (..., o)."""
        return by_rows(x, lambda rows_ni: onednn(rows_ni.contiguous(), self.laid_out, bias_o))


_users: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def packed_weights(network: nn.Module) -> Iterator[None]:
    """Inside, products of a few rows take the weights that `network` has now, laid out. Nothing may train it meanwhile.

    May be entered by several at once; who enters first lays out, who leaves last takes it back.
    """
    with _lock:
        users = _users.get(network, 0)
        _users[network] = users + 1
        if not users:
            _lay_out(network)
    try:
        yield
    finally:
        with _lock:
            _users[network] -= 1
            if not _users[network]:
                del _users[network]
                for layer in network.modules():
                    if isinstance(layer, Linear):
                        layer.packed = None


@torch.no_grad()
def _lay_out(network: nn.Module) -> None:
    layers = [
        layer
        for layer in network.modules()
        if type(layer) is Linear
        and layer.weight.dtype is torch.float32
        and layer.weight.device.type == "cpu"
        and not layer.weight.is_inference()  # these do not count how often they are written over
    ]
    if library() == "onednn" and sum(layer.weight.nbytes for layer in layers) <= MOST:
        for layer in layers:
            layer.packed = PackedWeight.of(layer.weight)
