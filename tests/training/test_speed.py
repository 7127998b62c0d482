"""The measurement trains for real, says what it did, and its figures agree with each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.stages.pretrain import language_model_loss
from duihua.training.config import OptimizerConfig, TrainerConfig
from duihua.training.optimizers import step_flops
from duihua.training.speed import measure_products, measure_steps

SHAPE = DecoderConfig(vocabulary_size=50, width=16, layers=2, heads=2, head_width=8, feed_forward_width=24, context=16)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_real_steps_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.chdir(tmp_path)
    network = Decoder(SHAPE).initialise(0)
    before = network.embedding.weight.detach().clone()
    found = measure_steps(
        network,
        language_model_loss,
        50,
        3,
        10,
        1000.0,
        config=TrainerConfig(precision=precision),  # type: ignore[arg-type]
        optimizer=OptimizerConfig(),
        seconds=0.05,
    )
    assert found.method == "training steps" and found.steps >= 1 and found.precision == precision
    assert found.tokens_per_second == pytest.approx(found.steps * 30 / found.seconds)
    assert found.operations_per_second == pytest.approx(1000 * found.tokens_per_second)
    assert found.step_seconds == pytest.approx(found.seconds / found.steps)
    assert not torch.equal(network.embedding.weight, before)
    assert not list(tmp_path.iterdir())


def test_bare_products_bound_the_rate() -> None:
    found = measure_products(16, 24, 3, 10, 1000.0, seconds=0.02)
    assert found.method == "matrix products" and found.steps == 0
    assert found.tokens_per_second == pytest.approx(found.operations_per_second / 1000)


def test_muons_own_products_by_hand() -> None:
    network = Decoder(SHAPE)
    # query and output 16 x 16, key and value 16 x 16 (two key-value heads of 8), gate, up and down 16 x 24; two blocks
    square, wide = 4 * 16**3 + 2 * 16**3, 4 * 16**2 * 24 + 2 * 16**3
    assert step_flops(network, OptimizerConfig(newton_schulz_steps=5)) == 2 * 5 * (4 * square + 3 * wide)
    assert step_flops(network, OptimizerConfig(kind="adamw")) == 0
