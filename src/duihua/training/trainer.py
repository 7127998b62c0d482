"""The one training loop. To know what happens in a step, read `Trainer.step`; to know the loss, read the stage.

Why a loss returns a sum and a weight instead of a mean: the gradient is divided by the weight of the whole step, so that
splitting a batch into micro-batches, padding it, or spreading it over ranks cannot change what is learnt.

Nothing is lost: a checkpoint is written on a time interval, before an evaluation, on SIGINT and SIGTERM and at the end,
and `run` goes on from the newest whole one. On a CPU with a fixed number of threads a run that was interrupted ends
with the same bits as one that was not.

The order within a step matters under fp16: the gradients are divided by the loss scale before their norm is taken and
clipped, or the threshold would be that of a gradient thousands of times larger (Micikevicius et al. 2018, section 3.2).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from duihua import console
from duihua.errors import TrainingError
from duihua.nn.lora import frozen_fingerprint
from duihua.training.checkpoints import load_newest, save_checkpoint
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.metrics_file import cut_metrics, read_metrics
from duihua.training.optimizers import Optimizer
from duihua.training.precision import autocast, compute_dtype, gradient_scaler
from duihua.training.schedules import Plateau, rate_factor
from duihua.training.stopping import StopSignal

Batch = dict[str, Tensor]


class LossParts(NamedTuple):
    """What a loss gives back for one micro-batch.

    sum: the summed loss with its graph. weight: what to divide by (usually the number of target tokens). metrics: further
    (sum, weight) pairs, detached, shown as their ratio over the step.
    """

    sum: Tensor
    weight: float
    metrics: Mapping[str, tuple[float, float]] = MappingProxyType({})


Loss = Callable[[nn.Module, Batch], LossParts]


class BatchSource(Protocol):
    """Where batches come from; its state goes into the checkpoint."""

    def next(self) -> list[Batch]:
        """The micro-batches of one step."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class TrainingResult:
    """loss: mean over the last logged steps. seconds and tokens count all parts of an interrupted run."""

    steps: int
    tokens: int
    loss: float
    seconds: float
    skipped_steps: int
    last_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Trainer:
    """Runs `steps` updates of `network` on `loss` over `batches`, and remembers everything in `directory`."""

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        batches: BatchSource,
        *,
        steps: int,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        config: TrainerConfig,
        directory: Path,
        device: str = "cpu",
        seed: int = 0,
        evaluate: Callable[[int], Mapping[str, float | str]] | None = None,
        label: str = "",
    ) -> None:
        if steps < 1:
            raise TrainingError(f"steps must be at least 1, found {steps}", where=label or "trainer")
        self.network, self.loss, self.batches = network.to(device), loss, batches
        self.steps, self.schedule, self.config = steps, schedule, config
        self.directory, self.device, self.evaluate, self.label = directory, torch.device(device), evaluate, label
        self.optimizer = Optimizer(network, optimizer)
        self.dtype = compute_dtype(config.precision, self.device)
        self.scaler = gradient_scaler(config, self.dtype, self.device)
        self.plateau = Plateau(schedule) if schedule.kind == "plateau" else None
        if config.gradient_checkpointing:
            _switch_on_checkpointing(network, label)
        self._frozen = frozen_fingerprint(network)
        self.step_number = 0
        self.tokens = 0
        self.seconds = 0.0
        self.skipped = 0
        self._skipped_in_row = 0
        self._saved_at = -1
        self._window: dict[str, tuple[float, float]] = {}
        self._metrics_path = directory / "metrics.jsonl"
        self.last_metrics: dict[str, float] = {}
        torch.manual_seed(seed)

    def run(self) -> TrainingResult:
        """Train to the last step, from the newest checkpoint if there is one.

        Raises KeyboardInterrupt after saving when asked to stop, TrainingError when the loss is not finite for too long.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._resume()
        last_save = started = time.monotonic()
        seconds_before = self.seconds
        tokens_before = self.tokens
        if self.evaluate is not None and self._evaluation_missing():
            self._write({"step": self.step_number, **self.evaluate(self.step_number)})
        with StopSignal() as stop, console.progress(self.steps, "step", self.label) as bar:
            bar.advance(self.step_number)
            while self.step_number < self.steps:
                shown = self.step()
                now = time.monotonic()
                self.seconds = seconds_before + (now - started)
                if self.step_number % self.config.log_every == 0 or self.step_number == self.steps:
                    speed = (self.tokens - tokens_before) / max(1e-9, now - started)
                    self._log({**shown, "tokens_per_second": speed})
                bar.advance(1, loss=self.last_metrics.get("loss", shown["loss"]))
                evaluating = bool(self.config.evaluate_every) and (
                    self.step_number % self.config.evaluate_every == 0 and self.evaluate is not None
                )
                by_count = bool(self.config.checkpoint_steps) and self.step_number % self.config.checkpoint_steps == 0
                due = now - last_save > self.config.checkpoint_seconds
                if due or by_count or evaluating or stop.asked or self.step_number == self.steps:
                    self.save()
                    last_save = time.monotonic()
                if stop.asked and self.step_number < self.steps:
                    raise KeyboardInterrupt
                if evaluating and self.evaluate is not None:
                    self._write({"step": self.step_number, **self.evaluate(self.step_number)})
        return TrainingResult(
            self.steps,
            self.tokens,
            self.last_metrics.get("loss", math.nan),
            self.seconds,
            self.skipped,
            self.last_metrics,
        )

    def step(self) -> dict[str, float]:
        """One update: gradients of all micro-batches, divided by the global weight, clipped, applied."""
        micro_batches = self.batches.next()
        factor = rate_factor(self.step_number, self.steps, self.schedule) * (
            self.plateau.factor if self.plateau else 1.0
        )
        self.network.train()
        self.optimizer.zero_grad()
        total, weight, divisor = 0.0, 0.0, 1.0
        sums: dict[str, tuple[float, float]] = {}
        for batch in micro_batches:
            on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
            with autocast(self.dtype, self.device):
                parts = self.loss(self.network, on_device)
            if len(micro_batches) == 1:  # divide before the backward pass and save a pass over all gradients
                divisor = max(float(parts.weight), 1e-12)
            elif (
                self.scaler is not None and weight == 0.0 and parts.weight
            ):  # a sum of losses would be too large for fp16
                divisor = float(parts.weight)
            divided = parts.sum / divisor if divisor != 1.0 else parts.sum
            scaled = divided if self.scaler is None else self.scaler.scale(divided)
            scaled.backward()  # type: ignore[no-untyped-call]
            total, weight = total + float(parts.sum.detach()), weight + float(parts.weight)
            for name, (value, count) in parts.metrics.items():
                old = sums.get(name, (0.0, 0.0))
                sums[name] = (old[0] + float(value), old[1] + float(count))
            self.tokens += int(batch["token_ids"].numel()) if "token_ids" in batch else int(parts.weight)
        if self.scaler is not None:
            self.scaler.unscale_(cast(torch.optim.Optimizer, self.optimizer))
        norm = self._scale_and_clip(1.0 if len(micro_batches) == 1 else divisor / max(weight, 1e-12))
        mean = total / max(weight, 1e-12)
        self.step_number += 1
        if math.isfinite(mean) and math.isfinite(norm):
            self.optimizer.step(factor)
            self._skipped_in_row = 0
        else:
            self._skip(mean, norm)
        if self.plateau is not None:
            self.plateau.observe(total, weight)
        shown = {"loss": mean, "gradient_norm": norm, "learning_rate": self.optimizer.rate(factor)}
        if self.scaler is not None:
            self.scaler.update()  # after a step with a gradient that is not finite: half the scale
            shown |= {"loss_scale": self.scaler.get_scale(), "skipped_steps": float(self.skipped)}
        for name, (value, count) in {"loss": (total, weight), **sums}.items():
            old = self._window.get(name, (0.0, 0.0))
            self._window[name] = (old[0] + value, old[1] + count)
        return shown

    def save(self) -> None:
        """Write a checkpoint of the present state, unless the newest is already of this step."""
        if self._saved_at == self.step_number:
            return
        state: dict[str, Any] = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "window": {name: list(pair) for name, pair in self._window.items()},
            "last_metrics": self.last_metrics,
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "random": torch.get_rng_state(),
            "frozen": self._frozen,
        }
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        if self.plateau is not None:
            state["plateau"] = self.plateau.state_dict()
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        weights = _changing(self.network)
        save_checkpoint(self.directory / "checkpoints", self.step_number, weights, state, self.config.keep_checkpoints)
        self._saved_at = self.step_number

    def _resume(self) -> None:
        found = load_newest(self.directory / "checkpoints")
        kept = 0
        if found is not None:
            step, weights, state, damaged = found
            for name in damaged:
                console.say(f"{self.label}: passed over a damaged checkpoint, {name}")
            if state.get("frozen", "") != self._frozen:
                raise TrainingError(
                    "the checkpoint was made beside other frozen weights",
                    where=str(self.directory / "checkpoints"),
                    remedy="Start from the same model as before, or choose another output",
                )
            self.network.load_state_dict(weights, strict=False)
            missing = set(_changing(self.network)) - set(weights)
            if missing:
                raise TrainingError(
                    f"the checkpoint lacks {', '.join(sorted(missing)[:5])}",
                    where=str(self.directory / "checkpoints"),
                    remedy="It belongs to another model; remove the folder or choose another output",
                )
            self.optimizer.load_state_dict(state["optimizer"])
            self.batches.load_state_dict(state["batches"])
            torch.set_rng_state(state["random"].to(torch.uint8))
            if self.device.type == "cuda" and "random_cuda" in state:
                torch.cuda.set_rng_state(state["random_cuda"].to(torch.uint8), self.device)
            if self.scaler is not None and "scaler" in state:
                self.scaler.load_state_dict(state["scaler"])
            if self.plateau is not None and "plateau" in state:
                self.plateau.load_state_dict(state["plateau"])
            self.step_number, self.tokens = step, int(state["tokens"])
            self.seconds, self.skipped = float(state["seconds"]), int(state["skipped"])
            self._window = {name: (pair[0], pair[1]) for name, pair in state["window"].items()}
            self.last_metrics = dict(state["last_metrics"])
            self._saved_at = step
            kept = step
            if step < self.steps:
                console.say(f"{self.label}: going on from step {step} of {self.steps}")
        cut_metrics(self._metrics_path, kept)

    def _evaluation_missing(self) -> bool:
        """Whether the run was ended between the checkpoint of an evaluation's step and the line that the evaluation writes."""
        every = self.config.evaluate_every
        if not every or not self.step_number or self.step_number % every:
            return False
        lines = (line for line in read_metrics(self._metrics_path) if line.get("step") == self.step_number)
        return all("learning_rate" in line for line in lines)

    def _scale_and_clip(self, scale: float) -> float:
        gradients = [weight.grad for weight in self.optimizer.parameters.values() if weight.grad is not None]
        if not gradients:
            raise TrainingError("no parameter received a gradient", where=self.label, remedy="Check what is frozen")
        norms = torch._foreach_norm(gradients)
        norm = float(torch.stack([n.float() for n in norms]).norm()) * scale
        if self.config.clip_norm and norm > self.config.clip_norm:
            scale = scale * self.config.clip_norm / (norm + 1e-6)
        if scale != 1.0:
            torch._foreach_mul_(gradients, scale)
        return norm

    def _skip(self, mean: float, norm: float) -> None:
        self.skipped += 1
        self._skipped_in_row += 1
        scale = "" if self.scaler is None else f", loss scale {self.scaler.get_scale():g}"
        console.say(f"{self.label}: step {self.step_number} skipped, loss {mean}, gradient norm {norm}{scale}")
        if self._skipped_in_row >= self.config.most_skipped_steps:
            raise TrainingError(
                f"{self._skipped_in_row} steps in a row had a loss or gradient that is not finite",
                where=self.label,
                remedy="Lower the learning rates, or check the data; the last good checkpoint is kept",
            )

    def _log(self, shown: dict[str, float]) -> None:
        means = {name: value / count if count else 0.0 for name, (value, count) in self._window.items()}
        self._window = {}
        self.last_metrics = means
        self._write(
            {"step": self.step_number, "tokens": self.tokens, **shown, **means, "seconds": round(self.seconds, 3)}
        )

    def _write(self, line: dict[str, Any]) -> None:
        with open(self._metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _switch_on_checkpointing(network: nn.Module, where: str) -> None:
    """Set `gradient_checkpointing` on every network inside that has it; TrainingError where none does."""
    found = [module for module in network.modules() if hasattr(module, "gradient_checkpointing")]
    if not found:
        raise TrainingError(
            f"{type(network).__name__} cannot recompute its activations",
            where=f"{where or 'trainer'}, gradient_checkpointing",
            remedy="Set gradient_checkpointing to false",
        )
    for module in found:
        module.gradient_checkpointing = True  # type: ignore[assignment]


def _changing(network: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint must hold: all but the frozen parameters, which the stage loads anew and `frozen_fingerprint`
    tells apart; a LoRA run's checkpoints are small by that."""
    frozen = {name for name, weight in network.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    return {name: tensor for name, tensor in _untied(network.state_dict()).items() if name not in frozen}


def _untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each stored tensor once: safetensors refuses two names for one memory."""
    seen: set[int] = set()
    kept: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor
    return kept
