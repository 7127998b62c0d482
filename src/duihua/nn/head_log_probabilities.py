"""Log-probabilities of given tokens straight from the vectors before the head, each with a weight that comes later.

Why beside the chunked cross-entropy: there a row's weight is known before the forward pass, so that its gradient can be
computed and forgotten at once. PPO, GRPO and DPO weigh a token by what its log-probability turns out to be. So softmax minus
one-hot is kept, n x v, once, where the plain way keeps logits, log-softmax and their gradient; and since a weight belongs to
a row, the backward pass puts it on rows of d numbers, not of v. Not in chunks: measured, narrower products lose more than
the cache wins.

Shapes: n tokens, d the width, v the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from duihua.nn.losses import SMALLEST_PROBABILITY, cap_logits
from duihua.nn.products import evened, product, weight_gradient


class TokenReadings(NamedTuple):
    """Per token, (n,) in fp32: its log-probability and the entropy in nats of the distribution that it was read in."""

    logprobs_n: Tensor
    entropies_n: Tensor


def head_log_probabilities(
    hidden_nd: Tensor, head_vd: Tensor, targets_n: Tensor, temperature: float = 1.0, soft_cap: float = 0.0
) -> Tensor:
    """log softmax(cap(hidden head^T) / temperature)[target], (n,) in fp32, with gradients for hidden and head.

    soft_cap: the model's own, see `cap_logits`. The numbers are those of `head_readings`, to the last bit.
    """
    found: Tensor = _HeadLogProbabilities.apply(  # type: ignore[no-untyped-call]
        evened(hidden_nd), head_vd, evened(targets_n), temperature, soft_cap, torch.is_grad_enabled()
    )
    return found[: len(targets_n)]


@torch.no_grad()
def head_readings(
    hidden_nd: Tensor, head_vd: Tensor, targets_n: Tensor, temperature: float = 1.0, soft_cap: float = 0.0
) -> TokenReadings:
    """Log-probabilities and entropies without gradients."""
    rows, hidden_nd, targets_n = len(targets_n), evened(hidden_nd), evened(targets_n)
    logprobs_n, entropies_n, _ = _read(hidden_nd, head_vd, targets_n, temperature, soft_cap, entropy=True, keep=False)
    return TokenReadings(logprobs_n[:rows], entropies_n[:rows])


def _read(
    hidden_nd: Tensor,
    head_vd: Tensor,
    targets_n: Tensor,
    temperature: float,
    soft_cap: float,
    *,
    entropy: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-probabilities, entropies (zeros where not asked for) and, kept, softmax - one-hot, (n, v), times the cap's slope."""
    targets = targets_n[:, None]
    raw_nv = product(hidden_nd, head_vd.t())  # of the type that autocast decides
    capped_nv = cap_logits(raw_nv.float(), soft_cap)
    scaled_nv = capped_nv if temperature == 1.0 else capped_nv / temperature
    chances_nv = torch.softmax(scaled_nv, dim=-1)
    right = chances_nv.gather(1, targets)
    found = right.log()
    if bool((right < SMALLEST_PROBABILITY).any()):
        found = scaled_nv.gather(1, targets) - scaled_nv.logsumexp(dim=-1, keepdim=True)
    entropies = torch.zeros_like(found)
    if entropy:  # log Z - sum_i p_i l_i: one more pass, where log, product and sum of the plain formula take four
        log_z = scaled_nv.gather(1, targets) - found
        with torch.autocast(raw_nv.device.type, enabled=False):
            expected = torch.bmm(chances_nv[:, None], scaled_nv[:, :, None])[:, 0]
        entropies = (log_z - expected).clamp(min=0.0)
    if not keep:
        return found[:, 0], entropies[:, 0], None
    away_nv = chances_nv.scatter_add_(1, targets, torch.full_like(right, -1.0))
    if soft_cap:  # d capped / d logits = 1 - tanh^2
        away_nv.mul_(1 - (capped_nv / soft_cap).square_())
    return found[:, 0], entropies[:, 0], away_nv.to(raw_nv.dtype)


class _HeadLogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        head_vd: Tensor,
        targets_n: Tensor,
        temperature: float,
        soft_cap: float,
        with_gradient: bool,
    ) -> Tensor:
        keep = with_gradient and (ctx.needs_input_grad[0] or ctx.needs_input_grad[1])
        logprobs_n, _, away_nv = _read(hidden_nd, head_vd, targets_n, temperature, soft_cap, entropy=False, keep=keep)
        if keep:
            ctx.save_for_backward(hidden_nd, head_vd, away_nv)
            ctx.temperature = temperature
        return logprobs_n

    @staticmethod
    def backward(ctx: Any, grad_n: Tensor) -> tuple[Tensor | None, ...]:
        hidden_nd, head_vd, away_nv = ctx.saved_tensors
        weights_n1 = (grad_n / -ctx.temperature)[
            :, None
        ]  # d log p(target) / d logits = (one-hot - softmax) / temperature
        grad_hidden = grad_head = None
        if ctx.needs_input_grad[0]:
            grad_hidden = product(away_nv, head_vd.to(away_nv.dtype)).to(hidden_nd.dtype) * weights_n1.to(
                hidden_nd.dtype
            )
        if ctx.needs_input_grad[1]:
            weighted_nd = (hidden_nd * weights_n1).to(away_nv.dtype)
            grad_head = weight_gradient(away_nv, weighted_nd).to(head_vd.dtype)
        return grad_hidden, grad_head, None, None, None, None
