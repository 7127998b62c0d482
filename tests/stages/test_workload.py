"""What a training says of its work: by formula and by one short measurement, which leaves the random state alone."""

from __future__ import annotations

from pathlib import Path

import torch

from duihua.models.config import DecoderConfig
from duihua.models.work import training_flops
from duihua.stages.context import StageContext
from duihua.stages.workload import product_rate, workload
from duihua.training.config import TrainerConfig
from duihua.training.progress import write_plan

SHAPE = DecoderConfig(
    vocabulary_size=100, width=16, layers=1, heads=2, key_value_heads=1, head_width=8, feed_forward_width=24, context=48
)


def test_the_speed_of_products_is_measured_once_for_a_run(tmp_path: Path) -> None:
    context = StageContext(tmp_path)
    first = workload(context, TrainerConfig(), SHAPE, 3.5)
    assert first["operations_per_token"] == training_flops(SHAPE, 1.0) and first["bytes_per_token"] == 3.5
    assert first["peak_operations_per_second"] > 0
    write_plan(tmp_path, {"steps": 3, "peak_operations_per_second": 7.0})
    assert workload(context, TrainerConfig(), SHAPE)["peak_operations_per_second"] == 7.0
    write_plan(tmp_path, {"steps": 3, "peak_operations_per_second": -1.0})
    assert workload(context, TrainerConfig(), SHAPE)["peak_operations_per_second"] > 7.0, (
        "what cannot be is measured anew"
    )


def test_measuring_leaves_the_random_state_of_a_training_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    product_rate("cpu", seconds=0.001)
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(1)
    assert not torch.equal(torch.get_rng_state(), before), "the same look sees a draw"
