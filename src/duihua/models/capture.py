"""What a network computes on its way: attention weights, queries, keys, values, gates, the vectors between the blocks.

    with captured(network) as inside:
        logits = network(ids)
    inside.attention[0].weights()      # (b, h, t, s) of the first layer
    inside.states["blocks"][1]         # (b, t, d) after the first block

Why the call is watched and not the module changed: the fused kernel never gives its weights away, and an attention that
returns them on request is a second code path that can differ from the first. Here torch hands every call of
`scaled_dot_product_attention` to us with the queries and keys as they are multiplied (after norm, rotation and cache) and
the mask as it is applied; the call itself goes through untouched, so the output is the same to the last bit. Weights are
worked out from these when they are asked for: softmax(Q K^T / sqrt(e) + mask) (Vaswani et al. 2017, equation 1), before
dropout. That holds for every network of ours, which all attend through that function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from duihua.nn.recurrent import Gates, RecurrentLayer


@dataclass
class CapturedAttention:
    """One call of attention.

    name: of the module that attends. stack: of the list of blocks that it is in ("" outside of one). layer: its number
    there, from 0. kind: whether it looks at its own sequence or at another. input_btd: what the module got. output_btd: what it
    gave (after the output projection). query_bhte, key_bgse, value_bgse: as multiplied; h query heads share g key heads. mask:
    booleans (true where a query may look) or numbers to be added, broadcastable to (b, h, t, s); None for none. causal: whether
    position i also sees no key behind i. scale: on the products.
    """

    name: str
    stack: str
    layer: int
    kind: Literal["self", "cross"]
    query_bhte: Tensor
    key_bgse: Tensor
    value_bgse: Tensor
    mask: Tensor | None
    causal: bool
    scale: float
    input_btd: Tensor | None = None
    output_btd: Tensor | None = None

    def scores(self) -> Tensor:
        """Q K^T times the scale, (b, h, t, s), before any mask; fp32 at least."""
        query, key = _precise(self.query_bhte), self._shared(_precise(self.key_bgse))
        return query @ key.transpose(-1, -2) * self.scale

    def visible(self) -> Tensor:
        """True where a query may look, (b, h, t, s)."""
        shape = (*self.query_bhte.shape[:-1], self.key_bgse.shape[-2])
        seen = torch.ones(shape, dtype=torch.bool, device=self.query_bhte.device)
        if self.causal:
            seen = seen.tril()
        if self.mask is not None:
            seen = seen & (self.mask if self.mask.dtype == torch.bool else self.mask != -torch.inf)
        return seen

    def masked_scores(self) -> Tensor:
        """The scores with minus infinity where nothing may be seen, as masked_fill puts it there: (b, h, t, s)."""
        scores = self.scores()
        if self.mask is not None and self.mask.dtype != torch.bool:
            scores = scores + self.mask
        return scores.masked_fill(~self.visible(), -torch.inf)

    def weights(self) -> Tensor:
        """The attention weights (b, h, t, s): each row adds up to 1; exactly 0 where nothing may be seen. A row that may
        see nothing at all is 0 throughout, not NaN, as the fused kernel has it."""
        return self.masked_scores().softmax(dim=-1).masked_fill(~self.visible(), 0.0)

    def mixed(self) -> Tensor:
        """The weighted sums of the values, (b, h, t, e)."""
        return self.weights() @ self._shared(_precise(self.value_bgse))

    def _shared(self, x_bgse: Tensor) -> Tensor:
        return x_bgse.repeat_interleave(self.query_bhte.shape[1] // x_bgse.shape[1], dim=1)


@dataclass
class Captured:
    """What the forwards inside the context computed, in the order of computing; a second forward adds to the first.

    states: for each list of blocks by its name, what the first block got and what each block gave, (b, t, d) each, layers + 1
    for one forward. gates: of each recurrent layer, by their names, (b, t, e) each. outputs: what the modules gave that were
    asked for by name.
    """

    attention: list[CapturedAttention] = field(default_factory=list)
    states: dict[str, list[Tensor]] = field(default_factory=dict)
    gates: list[Gates] = field(default_factory=list)
    outputs: dict[str, list[Any]] = field(default_factory=dict)

    def layers(self, kind: Literal["self", "cross"] = "self", stack: str | None = None) -> list[CapturedAttention]:
        """The attentions of a kind (of one list of blocks), in order."""
        return [one for one in self.attention if one.kind == kind and stack in (None, one.stack)]


@contextmanager
def captured(network: nn.Module, outputs: tuple[str, ...] = ()) -> Iterator[Captured]:
    """Collect what `network` computes inside the block; its results stay the same to the last bit (with gradients: but for
    rounding, see nn/whole_attention.py).

    outputs: names of modules (as in `named_modules`) whose results are wanted too. Tensors are copies without gradients.
    The hooks are on the modules: where another thread runs the same network, capture a twin (nn/lora.py) instead. Raises
    ValueError for an output that the network has no module for.
    """
    names = {module: name for name, module in network.named_modules()}
    if unknown := set(outputs) - set(names.values()):
        raise ValueError(f"no module named {', '.join(sorted(unknown))}")
    blocks = {
        block: (name, number)
        for module, name in names.items()
        if isinstance(module, nn.ModuleList)
        for number, block in enumerate(module)
    }
    found = Captured()
    running: list[_Call] = []

    def before(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        stack, number = blocks.get(module, running[-1].block if running else ("", -1))
        call = _Call(names[module], (stack, number), _first_tensor((*arguments, *named.values())))
        if module in blocks and call.input is not None:
            states = found.states.setdefault(stack, [])
            if number == 0:
                states.append(_copy(call.input))
        running.append(call)

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        call = running.pop()
        result = _first_tensor(output if isinstance(output, tuple) else (output,))
        if result is None:
            return  # the call has failed
        if isinstance(
            module, RecurrentLayer
        ):  # the fused kernel shows no gates: the steps are taken once more, one by one
            with torch.no_grad():
                found.gates.append(module.with_gates(*arguments[:2])[2])
        for attention in call.attentions:
            attention.output_btd = _copy(result)
        if module in blocks:
            found.states[call.block[0]].append(_copy(result))
        if call.name in outputs:
            found.outputs.setdefault(call.name, []).append(_detached(output))

    def attended(attention: CapturedAttention) -> None:
        if running:
            call = running[-1]
            attention.name, (attention.stack, attention.layer) = call.name, call.block
            attention.kind = "cross" if re.search("cross", call.name) else "self"
            attention.input_btd = None if call.input is None else _copy(call.input)
            call.attentions.append(attention)
        found.attention.append(attention)

    with ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after, always_call=True).remove)
        stack.enter_context(_Watch(attended))
        yield found


@dataclass
class _Call:
    """A module that is being called."""

    name: str
    block: tuple[str, int]
    input: Tensor | None
    attentions: list[CapturedAttention] = field(default_factory=list)


class _Watch(TorchFunctionMode):
    """Lets every torch function through and tells of those that attend."""

    def __init__(self, attended: Callable[[CapturedAttention], None]) -> None:
        super().__init__()
        self._attended = attended

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is nn.functional.scaled_dot_product_attention:
            with torch._C.DisableTorchFunction():
                self._attended(_read_call(*args, **(kwargs or {})))
        return result


def _read_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> CapturedAttention:
    """The arguments of scaled_dot_product_attention, in its own order and under its own names."""
    mask = None if attn_mask is None else _copy(attn_mask)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return CapturedAttention("", "", -1, "self", _copy(query), _copy(key), _copy(value), mask, is_causal, factor)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _copy(value)
    return type(value)(map(_detached, value)) if type(value) in (tuple, list) else value


def _precise(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _first_tensor(values: tuple[Any, ...]) -> Tensor | None:
    return next((value for value in values if isinstance(value, Tensor)), None)
