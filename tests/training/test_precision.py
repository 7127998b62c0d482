"""Number formats: shorter types follow fp32, and fp16's scaler does what Micikevicius et al. 2018 describe."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from duihua.errors import TrainingError
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.nn.losses import cross_entropy_sum
from duihua.stages.pretrain import language_model_loss
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.gradients import Gradients
from duihua.training.precision import compute_dtype
from duihua.training.trainer import LossParts, Trainer

SHAPE = DecoderConfig(
    vocabulary_size=64,
    width=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    head_width=16,
    feed_forward_width=48,
    context=32,
)


class Sentences:
    """Rows of a repeating pattern, so that there is something to learn; `parts` micro-batches of one row and the rest."""

    def __init__(self, parts: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.parts = parts

    def next(self) -> list[dict[str, Tensor]]:
        first = torch.randint(0, 64, (4, 1), generator=self.generator)
        rows = (first + 5 * torch.arange(25)) % 64
        pieces = [slice(0, 4)] if self.parts == 1 else [slice(0, 1), slice(1, 4)]
        return [{"token_ids": rows[piece, :-1], "targets": rows[piece, 1:]} for piece in pieces]

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["random"].to(torch.uint8))


def make(directory: Path, precision: str, steps: int = 16, parts: int = 1, **changes: Any) -> Trainer:
    return Trainer(
        changes.pop("network", None) or Decoder(SHAPE).initialise(1),
        changes.pop("loss", language_model_loss),
        changes.pop("batches", None) or Sentences(parts),
        steps=steps,
        optimizer=changes.pop("optimizer", OptimizerConfig(kind="adamw", learning_rate=3e-3)),
        schedule=ScheduleConfig(kind="constant", warmup_steps=2),
        config=TrainerConfig(precision=precision, log_every=1, checkpoint_seconds=1e9, **changes),  # type: ignore[arg-type]
        directory=directory,
        label="test",
    )


def curve(directory: Path, precision: str, **changes: Any) -> list[float]:
    trainer = make(directory, precision, **changes)
    return [trainer.step()["loss"] for _ in range(trainer.steps)]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_loss_curves_of_shorter_types_stay_within_one_per_cent(tmp_path: Path, precision: str, parts: int) -> None:
    full = curve(tmp_path, "fp32", parts=parts)
    short = curve(tmp_path, precision, parts=parts)
    assert full[-1] < 0.9 * full[0]  # something was learnt
    assert short == pytest.approx(full, rel=0.01)
    assert short != full  # and the shorter type was used
    other = curve(tmp_path, precision, parts=parts, optimizer=OptimizerConfig(kind="adamw", learning_rate=6e-3))
    assert other != pytest.approx(full, rel=0.01)  # control: the bound notices another rate


def faint(network: nn.Module, batch: dict[str, Tensor]) -> LossParts:
    """A loss whose gradients are too small for fp16."""
    total, weight, _ = language_model_loss(network, batch)
    return LossParts(1e-6 * total, weight)


def gradients(trainer: Trainer) -> Tensor:
    trainer.step()
    return torch.cat([weight.grad.flatten() for weight in trainer.network.parameters() if weight.grad is not None])


def blocks_started(network: Decoder) -> Decoder:
    """Projections into the residual stream away from zero, so that every matrix has a gradient."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return network


def test_small_gradients_live_under_the_scaler_and_vanish_without(tmp_path: Path) -> None:
    def measured(precision: str, scaled: bool) -> Tensor:
        network = blocks_started(Decoder(SHAPE).initialise(1))
        trainer = make(tmp_path, precision, network=network, loss=faint, clip_norm=0.0)
        if not scaled:
            trainer.scaler = None
        return gradients(trainer)

    full = measured("fp32", scaled=True)
    error = (measured("fp16", scaled=True) - full).norm() / full.norm()
    lost = (measured("fp16", scaled=False) - full).norm() / full.norm()
    assert error < 0.02
    assert lost > 0.3


class Spiky:
    """The loss of the batch, `factor` times larger in one step."""

    def __init__(self, at: int, factor: float) -> None:
        self.at, self.factor, self.calls = at, factor, 0

    def __call__(self, network: nn.Module, batch: dict[str, Tensor]) -> LossParts:
        total, weight, metrics = language_model_loss(network, batch)
        self.calls += 1
        return LossParts(total * self.factor if self.calls == self.at else total, weight, metrics)


def test_a_gradient_that_overflows_skips_its_step_halves_the_scale_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(tmp_path, "fp16", steps=8, loss=Spiky(at=4, factor=1e5))
    trainer.network = blocks_started(trainer.network)  # type: ignore[arg-type]
    for _ in range(3):
        trainer.step()
    before = [weight.clone() for weight in trainer.network.parameters()]
    shown = trainer.step()
    assert shown["gradient_norm"] == float("inf") or shown["gradient_norm"] != shown["gradient_norm"]
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    assert (shown["loss_scale"], shown["skipped_steps"]) == (32768.0, 1.0)
    assert "step 4 skipped" in capsys.readouterr().out
    after = trainer.step()
    assert after["loss_scale"] == 32768.0 and trainer.skipped == 1
    assert not all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    # control: fp32 has room for the same spike, and no step is left out
    wide = make(tmp_path, "fp32", steps=8, loss=Spiky(at=4, factor=1e5))
    for _ in range(5):
        assert "loss_scale" not in wide.step()
    assert wide.skipped == 0


def test_the_scale_grows_after_enough_finite_steps_and_is_logged(tmp_path: Path) -> None:
    make(tmp_path, "fp16", steps=5, loss_scale=256.0, loss_scale_growth_steps=2).run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss_scale"] for line in lines] == [256.0, 512.0, 512.0, 1024.0, 1024.0]


@pytest.mark.parametrize("stopped_at", [3, 6])
def test_a_resumed_fp16_run_has_the_same_bits_and_the_same_scale(tmp_path: Path, stopped_at: int) -> None:
    settings: dict[str, Any] = {"loss_scale": 1024.0, "loss_scale_growth_steps": 4}
    whole = make(tmp_path / "whole", "fp16", 10, **settings)
    whole.run()
    first = make(tmp_path / "parts", "fp16", 10, **settings)
    for _ in range(stopped_at):
        first.step()
    first.save()
    second = make(tmp_path / "parts", "fp16", 10, **settings)
    second.run()
    assert whole.scaler is not None and second.scaler is not None
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    assert whole.scaler.get_scale() == 4096.0
    weights = zip(whole.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)

    state = max((tmp_path / "parts" / "checkpoints").iterdir()) / "state.json"
    assert json.loads(state.read_text())["state"]["scaler"]["scale"] == 4096.0
    third = make(tmp_path / "forgetful", "fp16", 10, **settings)  # control: with another state the check fails
    third.step()
    assert third.scaler is not None and third.scaler.state_dict() != whole.scaler.state_dict()


class ClipsFirst(Gradients):
    """Wrong on purpose: clips the scaled gradient and divides it by the scale afterwards."""

    def scale_and_clip(self, scale: float, most: float) -> float:
        assert self.scaler is not None
        factor = self.scaler.get_scale()
        for weight in self.model.parameters():
            weight.grad = None if weight.grad is None else weight.grad * factor
        norm = super().scale_and_clip(scale, most)
        for weight in self.model.parameters():
            weight.grad = None if weight.grad is None else weight.grad / factor
        return norm


def test_the_gradient_is_clipped_after_it_is_divided_by_the_scale(tmp_path: Path) -> None:
    def moved(kind: type[Gradients], precision: str) -> tuple[Tensor, float]:
        trainer = make(
            tmp_path,
            precision,
            network=blocks_started(Decoder(SHAPE).initialise(1)),
            clip_norm=0.5,
            optimizer=OptimizerConfig(kind="sgd", learning_rate=1.0, momentum=0.0),
        )
        trainer._gradients.__class__ = kind
        before = torch.cat([weight.detach().flatten().clone() for weight in trainer.network.parameters()])
        norm = trainer.step()["gradient_norm"]
        after = torch.cat([weight.detach().flatten() for weight in trainer.network.parameters()])
        return after - before, norm

    full, full_norm = moved(Gradients, "fp32")
    short, short_norm = moved(Gradients, "fp16")
    wrong, wrong_norm = moved(ClipsFirst, "fp16")
    assert full_norm > 0.5  # the threshold was passed
    assert float(full.norm()) == pytest.approx(0.5 / 2, rel=1e-3)  # first of two warm-up steps: half the rate
    assert short_norm == pytest.approx(full_norm, rel=0.01)
    assert float((short - full).norm()) < 0.02 * float(full.norm())
    assert wrong_norm > 1000 * full_norm
    assert float((wrong - full).norm()) > 0.5 * float(full.norm())


def test_a_spike_is_survived_with_clipping_and_not_without(tmp_path: Path) -> None:
    def last_losses(clip: float) -> float:
        trainer = make(
            tmp_path,
            "fp32",
            steps=12,
            loss=Spiky(at=4, factor=3e3),
            clip_norm=clip,
            optimizer=OptimizerConfig(kind="sgd", learning_rate=0.2, momentum=0.0),
        )
        losses = [trainer.step()["loss"] for _ in range(12)]
        assert losses[0] == pytest.approx(4.16, abs=0.05)  # ln 64
        return max(losses[4:])

    assert last_losses(1.0) < 4.3
    assert not last_losses(0.0) < 20.0


def test_checkpointed_gradients_equal_plain_ones(tmp_path: Path) -> None:
    def of(checkpointing: bool, seed: int = 1) -> Tensor:
        network = blocks_started(Decoder(SHAPE).initialise(seed))
        return gradients(make(tmp_path, "fp32", network=network, gradient_checkpointing=checkpointing))

    plain = of(False)
    assert (of(True) - plain).abs().max() <= 1e-6 * plain.abs().max()
    assert (of(True, seed=2) - plain).abs().max() > 1e-2 * plain.abs().max()


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_checkpointing_reaches_the_decoder_in_a_wrapper_and_is_refused_where_nothing_has_it(tmp_path: Path) -> None:
    decoder = Decoder(SHAPE)
    make(tmp_path, "fp32", network=Wrapper(decoder), gradient_checkpointing=True)
    assert decoder.gradient_checkpointing
    assert not Decoder(SHAPE).gradient_checkpointing
    with pytest.raises(TrainingError, match="cannot recompute"):
        make(tmp_path, "fp32", network=nn.Linear(2, 2), gradient_checkpointing=True)


def test_one_rule_gives_the_type_of_the_products() -> None:
    assert compute_dtype("bf16", "cpu") is torch.bfloat16
    assert compute_dtype("fp16", "cpu") is torch.float16
    assert compute_dtype("fp32", "cpu") is None
    assert compute_dtype("auto", "cpu") is None


def test_weights_gradients_and_moments_stay_fp32(tmp_path: Path) -> None:
    trainer = make(tmp_path, "fp16")
    trainer.step()
    assert {weight.dtype for weight in trainer.network.parameters()} == {torch.float32}
    assert {weight.grad.dtype for weight in trainer.network.parameters() if weight.grad is not None} == {torch.float32}
    assert {tensor.dtype for tensor in trainer.optimizer.state_dict().values()} == {torch.float32}


def test_fastest_is_bf16_where_the_processor_multiplies_it_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr("duihua.training.precision.bf16_is_native", lambda native=native: native)
        assert compute_dtype("fastest", "cpu") is expected
        assert compute_dtype("auto", "cpu") is None


def test_auto_is_bf16_on_the_gpus_that_have_it_and_not_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A T4 and a V100 say that they support bf16, and take longer for it than for fp32."""
    for major, expected in ((9, torch.bfloat16), (8, torch.bfloat16), (7, None)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        properties = SimpleNamespace(major=major)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, properties=properties: properties)
        monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
        assert torch.cuda.is_bf16_supported(), "what a rule without this question would ask"
        for precision in ("auto", "fastest"):
            assert compute_dtype(precision, "cuda") is expected


def test_in_bf16_the_heads_three_products_are_bf16_and_the_gradients_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def noted(left: Tensor, right: Tensor) -> Tensor:
        seen.append((left.dtype, right.dtype))
        return left @ right

    monkeypatch.setattr("duihua.nn.losses.product", noted)
    generator = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(40, 32, generator=generator), torch.randn(64, 32, generator=generator) * 0.3
    targets, weights = torch.arange(40), torch.rand(40, generator=generator)

    def gradients(dtype: torch.dtype | None) -> list[Tensor]:
        given = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            total, _ = cross_entropy_sum(*given, targets, weights, chunk_rows=16)
        return [total.detach(), *torch.autograd.grad(total, given)]

    exact = gradients(None)
    for dtype, kinds, allowed in (
        (torch.bfloat16, {torch.bfloat16}, 0.02),
        (torch.float16, {torch.float16, torch.float32}, 0.002),
    ):
        seen.clear()
        found = gradients(dtype)
        assert {kind for pair in seen for kind in pair} == kinds  # fp16: small probabilities stay in fp32
        assert all(one.dtype is torch.float32 for one in found)
        assert all(
            float((a - b).abs().max()) < allowed * float(b.abs().max()) for a, b in zip(found, exact, strict=True)
        )


def test_no_copies_of_sharded_weights_are_kept_through_the_forward_pass(tmp_path: Path) -> None:
    """In bf16 autocast would keep one of every block, which is what sharding is there to avoid."""
    trainer = make(tmp_path, "bf16")
    kept: list[bool] = []

    def noting(network: nn.Module, batch: dict[str, Tensor]) -> LossParts:
        kept.append(torch.is_autocast_cache_enabled())
        return language_model_loss(network, batch)

    batches = trainer.batches.next()
    for sharded in (None, SimpleNamespace(seen={})):
        trainer._gradients.sharded = sharded  # type: ignore[assignment]
        kept.clear()
        trainer._gradients.of_step(batches, noting)
        assert set(kept) == {sharded is None}


def test_a_rank_without_rows_unscales_the_gradients_of_the_others(tmp_path: Path) -> None:
    trainer = make(tmp_path, "fp16")
    found = trainer._gradients._accumulate([{}], language_model_loss)
    assert found.weight == 0.0 and trainer.scaler is not None
    for weight in trainer.network.parameters():
        weight.grad = torch.full_like(weight, 2.0)
    trainer.scaler.unscale_(cast(torch.optim.Optimizer, trainer.optimizer))
    gradient = next(trainer.network.parameters()).grad
    assert gradient is not None and torch.equal(gradient, torch.full_like(gradient, 2.0 / trainer.scaler.get_scale()))
