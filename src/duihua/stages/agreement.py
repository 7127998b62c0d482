"""Whether replies were drawn from the policy that is trained: the sampler's log-probabilities against the trainer's.

Why it stops a training: a sampler with a cache, batched, and a trainer with packed rows are two programs for one function.
Where they differ by more than rounding, every ratio of PPO is wrong, and nothing else in the log shows it.

How large rounding is depends on the format, and in a short one on the network too: its depth, its logits. So where the bounds
for a short format are passed, the same tokens are read once more in fp32: the sampler may be about as far from that as the
trainer is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from duihua.errors import TrainingError

AGREEMENT = {torch.float32: 2e-4, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Largest difference (nats a token) between the sampler's and the trainer's log-probability that rounding explains.

Rounding grows with the logits: the largest differences measured are half a step to 7 steps of the format at the largest
logit. fp32: 20 times the largest of the quickstart's 13 rollouts (1.0e-5, logits up to 23), and twice that of random models
with logits of 270 (9e-5). fp16, bf16: 5 and 2.4 times the quickstart's policies (0.010 and 0.125, which is one step of bf16
at a logit of 23); random models with logits of 50 reach the bounds (0.056, 0.30) and have to be trained in fp32. A sampler
0.1 % too warm is off by 8e-4 already where all tokens are nearly equally likely, and by more where they are not."""
MEAN_AGREEMENT = {torch.float32: 2e-5, torch.float16: 0.005, torch.bfloat16: 0.02}
"""Largest mean of these differences over the tokens of a rollout, beside one token's `AGREEMENT`.

Why a mean too: rounding moves few tokens, another temperature moves all. In bf16 a step at a logit of 23 is as much as a
sampler 3 % too warm moves any token. The largest means measured on CPU, 200 to 400 tokens each: the quickstart's SFT model
(logits up to 20) in fp32 1.0e-6, fp16 8.3e-4, bf16 0.0063; random models of 2 to 8 layers with logits of 2 to 250 in fp32
3.6e-6, fp16 0.0018, bf16 0.0059. They do not grow as one token's does, since with large logits few tokens are in doubt. The
bounds are 6, 3 and 3 times the largest of these. The quickstart's model at a temperature of 1.0001 in fp32 is off by 2.2e-4,
at 1.003 in fp16 by 0.0065, at 1.01 and 1.03 in bf16 by 0.023 and 0.065; a flat random model, whose tokens a temperature moves
least, by a tenth of that."""

ALIKE, TOKEN_ALIKE = 1.3, 2.0
"""How many times as far from fp32 as the trainer's reading the sampler's may be: on average, and at its worst token.

Measured with ten random models (2 to 12 layers, logits of 1 to 24) in bf16 and fp16, 768 tokens each: right samplers 0.92 to
1.06 and 0.63 to 1.30 times. With 12 layers those differ from the trainer by 0.03 a token in bf16, which passes the bounds
above. Samplers 3 % too warm are 1.02 to 38 times as far off, under 1.3 where rounding alone is 0.03: more than that no
comparison in bf16 can tell."""


def check_agreement(
    sampled_n: Tensor,
    trained_n: Tensor,
    dtype: torch.dtype | None,
    where: str,
    in_fp32: Callable[[], Tensor] | None = None,
) -> float:
    """The largest difference of two readings of the same n tokens in nats; TrainingError if it or the mean is too large.

    dtype: of the forward passes, None for fp32. in_fp32: reads them once more in fp32, asked where a shorter format's bounds
    are passed. One token's worth of rounding is left out of the mean: of few tokens, a single one would decide it."""
    differences_n = (sampled_n - trained_n).abs()
    largest, mean = float(differences_n.max()), float(differences_n.mean())
    most = AGREEMENT[dtype or torch.float32]
    most_mean = MEAN_AGREEMENT[dtype or torch.float32] + most / len(differences_n)
    if not largest <= most:
        found = f"a token's log-probability by {largest:.4g}, more than {most}"
    elif not mean <= most_mean:
        found = f"the tokens' log-probabilities by {mean:.4g} on average, more than {most_mean:.4g}"
    else:
        return largest
    if in_fp32 is not None and dtype not in (None, torch.float32):
        exact_n = in_fp32()
        ours_n, theirs_n = (sampled_n - exact_n).abs(), (trained_n - exact_n).abs()
        if ours_n.mean() <= ALIKE * theirs_n.mean() and ours_n.max() <= TOKEN_ALIKE * theirs_n.max():
            return largest
        found += f"; from fp32 they are {float(ours_n.mean()):.4g} and {float(theirs_n.mean()):.4g} away on average"
    raise TrainingError(
        f"sampler and trainer disagree on {found}",
        where=where,
        remedy="The replies were not drawn from the policy that is trained; check temperature and precision",
    )
