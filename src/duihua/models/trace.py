"""A network's forward pass, layer by layer: what goes in, what comes out, whose parameters, how much work.

Why the network is run and no formula drawn up: every variant of the decoder is then shown as it is. It runs on imagined
tensors (models/imagined.py), so that the size does not matter.

Work is counted as in Kaplan et al. 2020 (section 2.1) and Chowdhery et al. 2022 (appendix B): a product of (m, k) and
(k, n) takes 2 m k n operations. Norms, activations, softmax, rotations and look-ups are left out: they are a few
operations a number, where a product is hundreds. In attention a query is multiplied with the keys that the causal mask
lets it see, on average (t + 1) / 2 of t; a kernel that also computes what is masked does up to twice that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from duihua.models.imagined import imagined
from duihua.nn.attention import CausalSelfAttention
from duihua.nn.lora import LoraLinear

Shape = tuple[int, ...]
_BLOCK = re.compile(r"(?:.*\.)?blocks\.\d+(?=\.|$)")


@dataclass(frozen=True)
class Layer:
    """One module in one forward pass.

    name: its path in the network; "" for the whole. kind: its class. input, output: shapes, None for a table that is read
    without being called. parameters, flops: its own, without those of the modules inside it, so that both columns
    add up to the whole. tied: its matrix is another module's and was counted there. copies, members: how many equal
    blocks this line stands for, and their numbers.
    """

    name: str
    kind: str
    input: Shape | None
    output: Shape | None
    parameters: int
    flops: int
    tied: bool = False
    copies: int = 1
    members: tuple[int, ...] = ()


def trace(network: nn.Module, batch: int, time: int) -> list[Layer]:
    """Every module that a forward of (batch, time) token ids calls, in that order, parents before what is in them.

    network: a Decoder, ScoredDecoder or Classifier. Dropouts that do nothing and identities are left out. Raises
    GenerationError when `time` is longer than the model's context.
    """
    layers: list[Layer] = []
    running: list[int] = []
    counted: set[int] = set()
    names = {module: name for name, module in network.named_modules() if not _does_nothing(module)}

    def weigh(tensors: list[Tensor]) -> tuple[int, bool]:
        fresh = [tensor for tensor in tensors if id(tensor) not in counted]
        counted.update(map(id, fresh))
        return sum(tensor.numel() for tensor in fresh), len(fresh) < len(tensors)

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        size, tied = weigh(list(module.parameters(recurse=False)))
        running.append(len(layers))
        kind, shape = type(module).__name__, _shape(arguments)
        layers.append(Layer(names[module], kind, shape, None, size, _own_flops(module, shape), tied))

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        place = running.pop()
        layers[place] = replace(layers[place], output=_shape((output,)))

    with imagined(network) as model:
        handles = [module.register_forward_pre_hook(before) for module in names]
        handles += [module.register_forward_hook(after) for module in names]
        try:
            with torch.no_grad():
                model.forward(batch, time)
        finally:
            for handle in handles:
                handle.remove()
        called, previous = {layer.name for layer in layers}, ""
        for module, name in names.items():
            own = [model.tensors[f"{name}.{key}".lstrip(".")] for key, _ in module.named_parameters(recurse=False)]
            if name not in called and any(id(tensor) not in counted for tensor in own):
                size, tied = weigh(own)
                place = max(index for index, layer in enumerate(layers) if layer.name == previous)
                layers.insert(place + 1, Layer(name, type(module).__name__, None, None, size, 0, tied))
                called.add(name)
            previous = name if name in called else previous
    return [replace(layer, name=layer.name.removeprefix("decoder.")) for layer in layers]


def collapse(layers: list[Layer]) -> list[Layer]:
    """Blocks that are alike in every line, shown once: those of the first, with `copies` and `members`."""
    blocks: dict[str, list[Layer]] = {}
    for layer in layers:
        if found := _BLOCK.match(layer.name):
            blocks.setdefault(found[0], []).append(layer)
    groups: dict[Any, list[str]] = {}
    for block, lines in blocks.items():
        alike = tuple(replace(line, name=line.name.removeprefix(block)) for line in lines)
        groups.setdefault(alike, []).append(block)
    members = {group[0]: tuple(int(name.rpartition(".")[2]) for name in group) for group in groups.values()}
    kept = []
    for layer in layers:
        found = _BLOCK.match(layer.name)
        if found is None:
            kept.append(layer)
        elif found[0] in members:
            kept.append(replace(layer, copies=len(members[found[0]]), members=members[found[0]]))
    return kept


def _does_nothing(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and module.p == 0.0)


def _shape(values: tuple[Any, ...]) -> Shape | None:
    return next((tuple(value.shape) for value in values if isinstance(value, Tensor)), None)


def _own_flops(module: nn.Module, shape: Shape | None) -> int:
    """Operations of the module's own products for an input of this shape."""
    if isinstance(module, nn.Linear):
        assert shape is not None
        rows = torch.Size(shape[:-1]).numel()
        work = 2 * rows * module.in_features * module.out_features
        if isinstance(module, LoraLinear):
            work += 2 * rows * len(module.lora_a) * (module.in_features + module.out_features)
        return work
    if isinstance(module, CausalSelfAttention):
        assert shape is not None
        return shape[0] * attention_flops(module.heads, module.head_width, shape[1] * (shape[1] + 1) // 2)
    return 0


def attention_flops(heads: int, head_width: int, pairs: int) -> int:
    """Operations of scores and weighted sum for so many pairs of a query and a key that it sees."""
    return 4 * heads * head_width * pairs
