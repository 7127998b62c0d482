"""Cross-entropy over a large vocabulary, in chunks, with its gradient computed in the forward pass.

Why: with 8,192 entries the logits of a batch are many times larger than all other activations together. The plain way
writes them, their log-softmax and their gradient to memory. Here a chunk of rows small enough for the processor's cache
is multiplied, turned into its gradient in place, multiplied back and forgotten; the backward pass only scales what is
there already. The idea is known from Liger Kernel and Cut Cross-Entropy (Wijmans et al. 2024).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from duihua.nn.products import add_weight_gradient, product

CHUNK_ELEMENTS = {"cpu": 2_000_000, "cuda": 64_000_000}
"""Logits a chunk. 8 MB in fp32 stay in a shared cache of today's processors; a GPU wants fewer and larger products."""
SMALLEST_PROBABILITY = 1e-30
"""Below this the loss is taken from the logits instead of from the rounded probability."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """sum_i weight_i * -q_i . log softmax(hidden_i head^T) with q_i = (1 - smoothing) one-hot(target_i) + smoothing / v;
    gradients for hidden and head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        head_vd: Tensor,
        targets_n: Tensor,
        weights_n: Tensor,
        chunk_rows: int,
        soft_cap: float,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        rows, kind = hidden_nd.shape[0], hidden_nd.device.type
        spread_losses = torch.zeros((), dtype=torch.float32, device=hidden_nd.device)
        needs_hidden, needs_head = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden_nd) if needs_hidden else None
        grad_head = torch.zeros_like(head_vd) if needs_head else None
        losses_n = torch.empty(rows, dtype=torch.float32, device=hidden_nd.device)
        short = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_nd.dtype
        read_nd, read_head_vd = hidden_nd.to(short), head_vd.to(short)
        if short is torch.bfloat16:  # fp16 would lose the small probabilities, which no loss scale has lifted yet
            hidden_nd, head_vd = read_nd, read_head_vd
        with torch.autocast(kind, enabled=False):
            for start in range(0, rows, chunk_rows):
                part = slice(start, start + chunk_rows)
                targets, weights = targets_n[part, None], weights_n[part, None]
                logits = cap_logits(product(read_nd[part], read_head_vd.t()).float(), soft_cap)
                chances = torch.softmax(logits, dim=-1)
                right = chances.gather(1, targets)
                losses = -torch.log(right)
                if bool((right < SMALLEST_PROBABILITY).any()):
                    losses = torch.logsumexp(logits, dim=-1, keepdim=True) - logits.gather(1, targets)
                losses_n[part] = losses[:, 0]
                if smoothing:  # the mean loss over the vocabulary: logsumexp - mean(logits), less the target's own loss
                    beside = logits.gather(1, targets) - logits.mean(dim=-1, keepdim=True)
                    spread_losses += (beside * weights).sum()
                if not (needs_hidden or needs_head):
                    continue
                grad = chances  # d loss / d logits = softmax - q (one-hot without smoothing), times the row's weight
                if smoothing:
                    grad.sub_(smoothing / head_vd.shape[0])
                grad.scatter_add_(1, targets, torch.full_like(right, smoothing - 1.0))
                grad.mul_(weights)
                if soft_cap:  # d capped / d logits = 1 - tanh^2
                    grad.mul_(1 - (logits / soft_cap).square_())
                grad = grad.to(head_vd.dtype)
                if grad_hidden is not None:
                    grad_hidden[part] = product(grad, head_vd)
                if grad_head is not None:
                    grad_head = add_weight_gradient(grad_head, grad, hidden_nd[part])
        grad_head = grad_head.contiguous() if grad_head is not None else None
        ctx.save_for_backward(*(g for g in (grad_hidden, grad_head) if g is not None))
        ctx.has = (needs_hidden, needs_head)
        total = (losses_n * weights_n).sum()
        if smoothing:
            total = total + smoothing * spread_losses
        ctx.mark_non_differentiable(losses_n)
        return total, losses_n

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        hidden = saved.pop(0) if ctx.has[0] else None
        head = saved.pop(0) if ctx.has[1] else None
        if not (grad_total.numel() == 1 and float(grad_total) == 1.0):
            hidden = hidden * grad_total if hidden is not None else None
            head = head * grad_total if head is not None else None
        return hidden, head, None, None, None, None, None


def cap_logits(logits: Tensor, soft_cap: float) -> Tensor:
    """c tanh(logits / c), within +-c (Gemma Team 2024, section 2); the logits as they are where c is 0."""
    return torch.tanh(logits / soft_cap) * soft_cap if soft_cap else logits


def cross_entropy_sum(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    chunk_rows: int | None = None,
    soft_cap: float = 0.0,
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the next-token losses, in nats, and the loss of each position (detached).

    hidden: (..., d) after the final norm. head_weight: (v, d). targets: (...) token ids; where a weight is 0 any valid id
    will do. weights: (...) fp32, 0 leaves a position out. soft_cap: the model's own, see `cap_logits`; a decoder's
    `next_token_losses` passes it, so that training and generation cannot differ in it. smoothing: share of the target's
    probability that is spread evenly over the vocabulary (Szegedy et al. 2016, section 7), in the sum alone: the losses
    of the positions are without it, so that perplexities can be compared. Returns a scalar and a tensor of the targets'
    shape. Positions of weight 0 are not computed at all; their entry in the second result is 0.
    """
    flat = hidden.reshape(-1, hidden.shape[-1])
    flat_targets, flat_weights = targets.reshape(-1), weights.reshape(-1).float()
    kept = flat_weights != 0
    everything = bool(kept.all())
    if not everything:
        index = kept.nonzero()[:, 0]
        flat, flat_targets, flat_weights = flat[index], flat_targets[index], flat_weights[index]
    if chunk_rows is None:
        elements = CHUNK_ELEMENTS["cpu" if hidden.device.type == "cpu" else "cuda"]
        chunk_rows = max(16, elements // head_weight.shape[0] // 16 * 16)
    total, losses = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        flat, head_weight, flat_targets, flat_weights, chunk_rows, soft_cap, smoothing
    )
    if everything:
        return total, losses.view(targets.shape)
    spread = torch.zeros(targets.numel(), dtype=torch.float32, device=losses.device)
    spread[index] = losses
    return total, spread.view(targets.shape)
