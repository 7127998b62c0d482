"""What a translator consists of, module by module: what goes in, what comes out, whose parameters.

Why the network is run and no formula drawn up: every variant is then shown as it is, and the parameters add up to the last
one, because each belongs to exactly one line. Blocks that are alike are one line with a number of copies. A network on the
meta device takes no memory, whatever its size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from duihua.models.translation_bundle import TranslatorNetwork

Shape = tuple[int, ...]
_BLOCK = re.compile(r"(encoder|decoder)\.(\d+)(.*)")


@dataclass(frozen=True)
class ModuleShape:
    """One module in one forward pass.

    name: its path; "" for the whole. kind: its class. input, output: shapes of the first tensors, None for a table that is
    read without being called. parameters: its own, without those of the modules inside it, of one copy. tied: its matrix is
    another module's and was counted there. copies: how many equal blocks the line stands for.
    """

    name: str
    kind: str
    input: Shape | None
    output: Shape | None
    parameters: int
    tied: bool = False
    copies: int = 1


def module_shapes(network: TranslatorNetwork, batch: int, tokens: int) -> list[ModuleShape]:
    """Every module that a forward of `batch` pairs with `tokens` tokens on each side calls, parents before what is in them.

    The copies times the parameters add up to the network's. Raises GenerationError for more tokens than the network reads.
    """
    shapes: dict[nn.Module, tuple[Shape | None, Shape | None]] = {}

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        shapes.setdefault(module, (_shape(arguments), _shape((output,))))

    named = dict(network.named_modules())
    handles = [module.register_forward_hook(after) for module in named.values()]
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            ids = torch.zeros((batch, tokens), dtype=torch.long, device=device)
            network(ids, torch.ones_like(ids), ids)
    finally:
        for handle in handles:
            handle.remove()
    counted: set[int] = set()
    lines = []
    for name, module in named.items():
        own = list(module.parameters(recurse=False))
        fresh = [weight for weight in own if id(weight) not in counted]
        counted.update(map(id, fresh))
        if fresh or (module in shapes and not isinstance(module, nn.Identity | nn.Dropout)):
            size = sum(weight.numel() for weight in fresh)
            called = shapes.get(module, (None, None))
            lines.append(ModuleShape(name, type(module).__name__, *called, size, len(fresh) < len(own)))
    lines = _collapsed(lines)
    assert sum(line.parameters * line.copies for line in lines) == sum(w.numel() for w in network.parameters())
    return lines


def _collapsed(lines: list[ModuleShape]) -> list[ModuleShape]:
    """The first block of each stack for all of them: they have one config."""
    numbers: dict[str, set[str]] = {}
    for line in lines:
        found = _BLOCK.fullmatch(line.name)
        if found is not None:
            numbers.setdefault(found[1], set()).add(found[2])
    kept = []
    for line in lines:
        found = _BLOCK.fullmatch(line.name)
        if found is None:
            kept.append(line)
        elif found[2] == "0":
            kept.append(replace(line, copies=len(numbers[found[1]])))
    return kept


def _shape(values: tuple[Any, ...]) -> Shape | None:
    for value in values:
        if isinstance(value, tuple) and not isinstance(value, nn.utils.rnn.PackedSequence):
            return _shape(value)
        if isinstance(value, Tensor | nn.utils.rnn.PackedSequence):
            return tuple((value if isinstance(value, Tensor) else value.data).shape)
    return None
