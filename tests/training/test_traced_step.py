"""One training step followed from the batch to the new weights, with the shape of everything on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duihua.models.decoder import Decoder
from duihua.models.presets import preset
from duihua.stages.pretrain import language_model_loss
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.trainer import Trainer

ROWS, TIME, WIDTH, HEADS, WORDS = 3, 7, 16, 2, 40


def network(dtype: torch.dtype = torch.float32) -> Decoder:
    shape = {"width": WIDTH, "layers": 2, "heads": HEADS, "key_value_heads": HEADS, "head_width": 8}
    made = Decoder(preset("gpt1", vocabulary_size=WORDS, **shape, feed_forward_width=64, context=TIME))
    for field in ("embedding_dropout", "attention_dropout", "residual_dropout"):
        assert getattr(made.config, field) == 0.1
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + (weight.ndim == 1))
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # dropout would make the two forwards below differ
    return made.to(dtype)


class OneBatch:
    """The same rows in every step, as one micro-batch."""

    def __init__(self) -> None:
        ids = torch.randint(0, WORDS, (ROWS, TIME + 1), generator=torch.Generator().manual_seed(1))
        self.batch = {"token_ids": ids[:, :-1], "targets": ids[:, 1:]}

    def next(self) -> list[dict[str, Tensor]]:
        return [self.batch]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state


def trainer(made: Decoder, directory: Path, clip: float = 0.0) -> Trainer:
    return Trainer(
        made,
        language_model_loss,
        OneBatch(),
        steps=1,
        optimizer=OptimizerConfig(kind="sgd", learning_rate=0.1, momentum=0.0),
        schedule=ScheduleConfig(kind="constant", warmup_steps=0),
        config=TrainerConfig(clip_norm=clip, precision="fp32"),
        directory=directory,
        label="traced",
    )


def test_a_step_from_the_batch_to_the_weights(tmp_path: Path) -> None:
    made = network()
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            shapes[name] = tuple(output.shape)

        module.register_forward_hook(note)

    for name, module in made.named_modules():
        watch(name, module)
    before = {name: weight.detach().clone() for name, weight in made.named_parameters()}
    [batch] = OneBatch().next()
    assert torch.equal(batch["token_ids"][:, 1:], batch["targets"][:, :-1])  # shifted by one
    shown = trainer(made, tmp_path).step()

    # forward: (b, t) -> (b, t, d) through every block; the hidden units are four times as many
    assert shapes["embedding"] == shapes["blocks.0"] == shapes["blocks.1"] == (ROWS, TIME, WIDTH)
    assert shapes["blocks.0.attention.query"] == (ROWS, TIME, HEADS * 8)
    assert shapes["blocks.1.feed_forward.up"] == (ROWS, TIME, 4 * WIDTH)
    assert "head" not in shapes  # the loss multiplies in chunks, without ever holding (b, t, v)

    # loss: the mean of b x t cross-entropies
    with torch.no_grad():
        logits = _with(made, before)(batch["token_ids"])
    assert logits.shape == (ROWS, TIME, WORDS)
    plain = nn.functional.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
    assert shown["loss"] == pytest.approx(float(plain), rel=1e-5)

    # backward: a gradient of the shape of each weight, whose norm over all is logged
    gradients = {name: weight.grad for name, weight in made.named_parameters()}
    squares = 0.0
    for name, gradient in gradients.items():
        assert gradient is not None and gradient.shape == before[name].shape
        squares += float(gradient.square().sum())
    assert shown["gradient_norm"] == pytest.approx(squares**0.5, rel=1e-5)

    # update: weight - rate x gradient, and the loss of the same batch is lower
    for name, weight in made.named_parameters():
        gradient = gradients[name]
        assert gradient is not None
        assert torch.allclose(weight, before[name] - 0.1 * gradient, atol=1e-7), name
    after = trainer(made, tmp_path).step()
    assert after["loss"] < shown["loss"]


def _with(made: Decoder, weights: dict[str, Tensor]) -> Decoder:
    """A decoder of the same shape with these weights, without hooks."""
    other = Decoder(made.config).eval()
    other.load_state_dict(weights, strict=False)
    return other


def test_back_propagation_gives_the_slope_of_the_loss_along_every_weight() -> None:
    """Each weight is moved along a random direction, both ways, in float64: (L(w + e d) - L(w - e d)) / 2e = g . d."""
    made = network(torch.float64)
    [batch] = OneBatch().next()

    def loss() -> Tensor:
        logits = made(batch["token_ids"])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())

    loss().backward()
    generator, step = torch.Generator().manual_seed(2), 1e-5
    for name, weight in made.named_parameters():
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        assert weight.grad is not None
        with torch.no_grad():
            weight.add_(step * direction)
            above = float(loss())
            weight.sub_(2 * step * direction)
            below = float(loss())
            weight.add_(step * direction)
        slope = float((weight.grad * direction).sum())
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-9), name
        if not name.endswith("key.bias"):  # a bias of the keys moves all scores of a query alike and does nothing
            assert slope != pytest.approx(1.01 * slope, rel=1e-5, abs=1e-9), name  # control: one per cent is seen
