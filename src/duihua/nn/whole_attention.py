"""Attention of a training step by a few batched matrix products, with a backward pass of its own.

Why: the fused kernel that PyTorch has for processors never holds the scores, which saves memory and pays for it with
arithmetic at a sixth of what the machine's products reach, and in bf16 no faster than in fp32. Rows of some hundred tokens
fit into memory with all their scores. Then everything is a product of matrices; heads that share keys are one
matrix; and what lies above the diagonal is computed in vain, which costs less than cutting it out. Kept for the backward
pass are the attention weights. Only where oneDNN multiplies (nn/products.py), and for rows of up to 1,024 tokens;
longer ones are the fused kernel's.

Shapes: b rows, h query heads, g heads of keys, r = h / g, t queries, s keys, e features; n = b g.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from duihua.nn.products import batched_product, bf16_is_native, library

LONGEST = 1024
"""Tokens a row up to which the scores are held."""
SMALLEST = {torch.float32: 8_000_000, torch.bfloat16: 100_000}
"""Multiplications and additions of one matrix of scores from which this is the faster way: bf16 has products of whole batches,
fp32 has one call a matrix."""
CHUNK = 800_000
"""Scores that are worked on at once: they stay in a processor's second cache."""


def fits(query_bhte: Tensor, key_bgse: Tensor, dropout: float) -> bool:
    """Whether `attend` is to be used: while gradients are wanted, on a processor where it is the faster way."""
    _, heads, time, features = query_bhte.shape
    groups, length = key_bgse.shape[1:3]
    return (
        query_bhte.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and not dropout
        and time == length <= LONGEST
        and time % 64 == 0  # each length is a program of its own, which oneDNN keeps: see `evened`
        and _is_faster_in(dtype := _format(query_bhte))
        and heads // groups * time * length * features >= SMALLEST[dtype]
        and not torch._C._len_torch_function_stack()  # somebody watches for the fused kernel: models/capture.py
    )


def attend(query_bhte: Tensor, key_bgse: Tensor, value_bgse: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(e)) V, (b, h, t, e). mask: (b or 1, 1, t, s) booleans, true where a query may look; None for causal.

    A query that may look nowhere looks everywhere alike.
    """
    dtype = _format(query_bhte)
    batch, heads, time, features = query_bhte.shape
    groups, length = key_bgse.shape[1:3]
    query = (query_bhte * features**-0.5).to(dtype).reshape(batch * groups, -1, features)
    key, value = (x.to(dtype).reshape(batch * groups, length, features) for x in (key_bgse, value_bgse))
    # made anew each time, which is little: one that is kept might be an imagined tensor (models/imagined.py)
    seen = torch.ones(1, time, length, dtype=torch.bool).tril() if mask is None else mask[:, 0]
    bias = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min / 2)
    if len(bias) > 1:
        bias = bias[:, None].expand(batch, groups, time, length).reshape(batch * groups, time, length)
    with torch.autocast("cpu", enabled=False):
        mixed = cast(Tensor, _Attend.apply(query, key, value, bias))  # type: ignore[no-untyped-call]
    return mixed.view(batch, heads, time, features)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_nqe: Tensor, key_nse: Tensor, value_nse: Tensor, bias_nts: Tensor) -> Tensor:
        rows, length = query_nqe.shape[1], key_nse.shape[1]
        step = _chunk(query_nqe, rows * length)
        mixed, kept = [], []
        for start in range(0, len(query_nqe), step):
            part = slice(start, start + step)
            scores = batched_product(query_nqe[part], key_nse[part])
            bias = bias_nts if len(bias_nts) == 1 else bias_nts[part]
            scores.view(len(scores), -1, *bias.shape[1:]).add_(bias[:, None])
            weights = torch.softmax(scores, dim=-1)
            mixed.append(batched_product(weights, value_nse[part].mT))
            kept.append(weights)
        ctx.save_for_backward(query_nqe, key_nse, value_nse, *kept)
        return torch.cat(mixed) if len(mixed) > 1 else mixed[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_nqe: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        grad = grad_nqe.contiguous()
        step = len(kept[0])
        grads: list[list[Tensor]] = [[], [], []]
        with torch.autocast("cpu", enabled=False):  # the format is that of the forward pass
            for number, weights in enumerate(kept):
                part = slice(number * step, (number + 1) * step)
                grad_weights = batched_product(grad[part], value[part])
                grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
                grads[0].append(batched_product(grad_scores, key[part].mT))
                grads[1].append(batched_product(query[part].mT, grad_scores.mT).mT)  # the narrow side first
                grads[2].append(batched_product(grad[part].mT, weights.mT).mT)
        return (*(torch.cat(parts) for parts in grads), None)


def _chunk(query_nqe: Tensor, scores: int) -> int:
    """Matrices that are worked on at once: one after the other where oneDNN takes no batches."""
    return 1 if query_nqe.dtype == torch.float32 else max(1, CHUNK // scores)


def _format(query: Tensor) -> torch.dtype:
    """The number format of the products: autocast's, or the query's."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype


def _is_faster_in(dtype: torch.dtype) -> bool:
    """Whether this way is the faster one on this processor in a number format."""
    return bf16_is_native() if dtype is torch.bfloat16 else dtype is torch.float32 and library() == "onednn"
