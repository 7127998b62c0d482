"""What a language model's training is for the machine, said to whoever watches it (training/progress.py)."""

from __future__ import annotations

import time

import torch

from duihua.models.config import DecoderConfig
from duihua.models.work import training_flops
from duihua.nn.products import product
from duihua.stages.context import StageContext
from duihua.training.config import TrainerConfig
from duihua.training.precision import compute_dtype
from duihua.training.progress import read_plan

SIZE = {False: 768, True: 4096}
"""Side of the square products that are timed on a CPU and on a GPU: large enough for the full rate, some milliseconds each."""
SECONDS = 0.05


def workload(
    context: StageContext, trainer: TrainerConfig, shape: DecoderConfig, bytes_per_token: float = 0.0
) -> dict[str, float]:
    """Operations of a token in rows of `shape.context`, and the operations a second that bare products of matrices reach on
    the stage's device, measured once for a run. bytes_per_token: of the text, where bits per byte mean something."""
    known = read_plan(context.directory).get("peak_operations_per_second")
    if not isinstance(known, int | float) or not known > 0:
        known = product_rate(context.device, compute_dtype(trainer.precision, context.device))
    facts = {"operations_per_token": training_flops(shape, 1.0), "peak_operations_per_second": float(known)}
    return facts | ({"bytes_per_token": bytes_per_token} if bytes_per_token else {})


def product_rate(device: str, dtype: torch.dtype | None = None, seconds: float = SECONDS) -> float:
    """Operations a second of bare products in that number format: the quickest of those that fit into `seconds`.

    The random state of a training is left as it is.
    """
    on_gpu = torch.device(device).type == "cuda"
    side = SIZE[on_gpu]
    left = torch.ones(side, side, device=device, dtype=dtype or torch.float32)
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        product(left, left)
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * side**3 / best
