"""Whether replies were drawn from the policy that is trained: the sampler's log-probabilities against the trainer's.

Why it stops a training: a sampler with a cache, batched, and a trainer with packed rows are two programs for one function.
Where they differ by more than rounding, every ratio of PPO is wrong, and nothing else in the log shows it.
"""

from __future__ import annotations

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


def check_agreement(sampled_n: Tensor, trained_n: Tensor, dtype: torch.dtype | None, where: str) -> float:
    """The largest difference of two readings of the same n tokens in nats; TrainingError if too large. dtype: of the forward
    passes, None for fp32."""
    difference = float((sampled_n - trained_n).abs().max())
    allowed = AGREEMENT[dtype or torch.float32]
    if not difference <= allowed:
        raise TrainingError(
            f"sampler and trainer disagree on a token's log-probability by {difference:.4g}, more than {allowed}",
            where=where,
            remedy="The replies were not drawn from the policy that is trained; check temperature and precision",
        )
    return difference
