"""The one rule for number formats: in which type the matrix products run, and how fp16 gradients are kept alive.

Weights, gradients, optimizer state and reductions are fp32 always. Matrix products may run in a shorter type under
autocast. bf16 has the exponent of fp32 and needs nothing else. fp16 has more digits but ends at 65,504 and at 6e-8, so
that small gradients become zero: the loss is multiplied by a scale before the backward pass and the gradients are divided
by it afterwards; where one is not finite the step is left out and the scale halved, and after a long time without that
it is doubled (Micikevicius et al. 2018, Mixed Precision Training, section 3.2; the dynamic form of its section 5 remark
as torch.amp.GradScaler has it). Trainer, sampler, scorer and engine ask this module, so that they compute alike.
"""

from __future__ import annotations

import contextlib

import torch

from duihua.nn.products import bf16_is_native, gpu_has_bf16
from duihua.training.config import TrainerConfig

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(precision: str, device: str | torch.device) -> torch.dtype | None:
    """The type of the matrix products for a TrainerConfig.precision on a device; None for fp32, that is, no autocast."""
    if precision in ("auto", "fastest"):
        if torch.device(device).type == "cuda":
            return torch.bfloat16 if gpu_has_bf16() else None
        return torch.bfloat16 if precision == "fastest" and bf16_is_native() else None
    return DTYPES.get(precision)


def autocast(
    dtype: torch.dtype | None, device: str | torch.device, keep_copies: bool = True
) -> contextlib.AbstractContextManager[object]:
    """Run matrix products in `dtype`; nothing for None. keep_copies: of the weights in that type until the end of the block,
    for those that multiply more than once."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype, cache_enabled=keep_copies)


def gradient_scaler(
    config: TrainerConfig, dtype: torch.dtype | None, device: str | torch.device
) -> torch.amp.GradScaler | None:
    """The scaler that fp16 needs; None for every other type."""
    if dtype is not torch.float16:
        return None
    return torch.amp.GradScaler(
        torch.device(device).type,
        init_scale=config.loss_scale,
        growth_interval=config.loss_scale_growth_steps,
    )
