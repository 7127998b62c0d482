"""What training keeps in memory between the forward and the backward pass, beside weights, gradients and optimizer.

Why it is not a formula: which tensors autograd keeps depends on every operation. The network is run on imagined tensors
and each piece of memory that is kept is counted once. With gradient checkpointing (Chen et al. 2016) only what enters
each block stays, and one block's tensors live at a time while it is computed again.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from duihua.models.decoder import Decoder
from duihua.models.imagined import imagined, trunk
from duihua.nn.losses import CHUNK_ELEMENTS
from duihua.nn.products import products_by


@dataclass(frozen=True)
class Activations:
    """Bytes for a batch of (batch, time) token ids.

    plain, checkpointed: kept of the trunk. loss: what the chunked next-token loss holds on top, gradients of the head
    and of the last vectors and one chunk of logits with its gradient; 0 for other heads.
    """

    batch: int
    time: int
    plain: int
    checkpointed: int
    loss: int

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def count_activations(
    network: nn.Module, batch: int, time: int, dtype: torch.dtype | None = None, device: str = "cpu"
) -> Activations:
    """dtype: of the matrix products under autocast; None for fp32. Raises GenerationError for too long a `time`.

    On a GPU attention is a fused kernel's, and the loss takes larger chunks; the rest is counted as on this CPU, which keeps a
    little less of a gated layer.
    """
    config = trunk(network).config
    gpu = device.startswith("cuda")
    if gpu and dtype is not None:
        dtype = torch.float16  # as long as bf16, and never this processor's own way
    with products_by("torch") if gpu else nullcontext():
        by_block, outside = kept_for_backward(network, batch, time, dtype)
    entering = 4 * batch * time * config.width * config.layers
    loss = 0
    if isinstance(network, Decoder):
        rows = min(batch * time, max(16, CHUNK_ELEMENTS["cuda" if gpu else "cpu"] // config.vocabulary_size))
        loss = 4 * (batch * time * config.width + config.vocabulary_size * (config.width + 2 * rows))
    return Activations(batch, time, sum(by_block) + outside, outside + entering + max(by_block), loss)


def kept_for_backward(
    network: nn.Module, batch: int, time: int, dtype: torch.dtype | None = None
) -> tuple[list[int], int]:
    """Bytes that autograd keeps of one forward of the trunk up to the final norm: for each block, and outside of them.

    Each piece of memory counts once, where it is met first. Parameters do not count; copies of them in a shorter type
    do. Attention is that of this CPU: torch's kernel keeps no (t, t) weights unless there is dropout on them, the batched
    products of nn/whole_attention.py do.
    """
    decoder = trunk(network)
    found = [0] * (len(decoder.blocks) + 1)  # the last entry: outside
    here = -1
    met: dict[int, Any] = {}

    def enter(number: int) -> Any:
        def hook(*_: Any) -> None:
            nonlocal here
            here = number

        return hook

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in met:
            met[storage._cdata] = storage  # held, so that its address is not given to another
            found[here] += storage.nbytes()
        return tensor

    checkpointing, was_training = decoder.gradient_checkpointing, decoder.training
    handles = []
    decoder.gradient_checkpointing = False
    decoder.train()
    try:
        for number, block in enumerate(decoder.blocks):
            handles += [block.register_forward_pre_hook(enter(number)), block.register_forward_hook(enter(-1))]
        with imagined(decoder) as model:
            for tensor in model.tensors.values():
                met[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            with (
                torch.autocast("cpu", dtype=dtype, enabled=dtype is not None),
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            ):
                model.hidden(batch, time)
    finally:
        for handle in handles:
            handle.remove()
        decoder.gradient_checkpointing = checkpointing
        decoder.train(was_training)
    return found[:-1], found[-1]
