"""The one training loop. To know what happens in a step, read `Trainer.step`; to know the loss, read the stage.

Why a loss returns a sum and a weight instead of a mean: the gradient is divided by the weight of the whole step, so that
splitting a batch into micro-batches, padding it, or spreading it over ranks cannot change what is learnt.

Nothing is lost: a checkpoint is written on a time interval, before an evaluation, on SIGINT and SIGTERM and at the end,
and `run` goes on from the newest whole one. On a CPU with a fixed number of threads a run that was interrupted ends
with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from duihua import console
from duihua.errors import TrainingError
from duihua.training.checkpoints import load_newest, save_checkpoint
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.optimizers import Optimizer
from duihua.training.schedules import rate_factor

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
        evaluate: Callable[[int], dict[str, float]] | None = None,
        label: str = "",
    ) -> None:
        if steps < 1:
            raise TrainingError(f"steps must be at least 1, found {steps}", where=label or "trainer")
        self.network, self.loss, self.batches = network.to(device), loss, batches
        self.steps, self.schedule, self.config = steps, schedule, config
        self.directory, self.device, self.evaluate, self.label = directory, torch.device(device), evaluate, label
        self.optimizer = Optimizer(network, optimizer)
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
        with _StopSignal() as stop, console.progress(self.steps, "step", self.label) as bar:
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
        factor = rate_factor(self.step_number, self.steps, self.schedule)
        self.network.train()
        self.optimizer.zero_grad()
        total, weight = 0.0, 0.0
        sums: dict[str, tuple[float, float]] = {}
        for batch in micro_batches:
            on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
            with self._autocast():
                parts = self.loss(self.network, on_device)
            # One micro-batch: divide before the backward pass and save a pass over all gradients.
            alone = len(micro_batches) == 1
            (parts.sum / max(parts.weight, 1e-12) if alone else parts.sum).backward()  # type: ignore[no-untyped-call]
            total, weight = total + float(parts.sum.detach()), weight + float(parts.weight)
            for name, (value, count) in parts.metrics.items():
                old = sums.get(name, (0.0, 0.0))
                sums[name] = (old[0] + float(value), old[1] + float(count))
            self.tokens += int(batch["token_ids"].numel()) if "token_ids" in batch else int(parts.weight)
        norm = self._scale_and_clip(1.0 if len(micro_batches) == 1 else 1.0 / max(weight, 1e-12))
        mean = total / max(weight, 1e-12)
        self.step_number += 1
        if math.isfinite(mean) and math.isfinite(norm):
            self.optimizer.step(factor)
            self._skipped_in_row = 0
        else:
            self._skip(mean, norm)
        shown = {"loss": mean, "gradient_norm": norm, "learning_rate": self.optimizer.rate(factor)}
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
        }
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        weights = _untied(self.network.state_dict())
        save_checkpoint(self.directory / "checkpoints", self.step_number, weights, state, self.config.keep_checkpoints)
        self._saved_at = self.step_number

    def _resume(self) -> None:
        found = load_newest(self.directory / "checkpoints")
        kept = 0
        if found is not None:
            step, weights, state, damaged = found
            for name in damaged:
                console.say(f"{self.label}: passed over a damaged checkpoint, {name}")
            self.network.load_state_dict(weights, strict=False)
            missing = set(_untied(self.network.state_dict())) - set(weights)
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
            self.step_number, self.tokens = step, int(state["tokens"])
            self.seconds, self.skipped = float(state["seconds"]), int(state["skipped"])
            self._window = {name: (pair[0], pair[1]) for name, pair in state["window"].items()}
            self.last_metrics = dict(state["last_metrics"])
            self._saved_at = step
            kept = step
            if step < self.steps:
                console.say(f"{self.label}: going on from step {step} of {self.steps}")
        _cut_metrics(self._metrics_path, kept)

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
        console.say(f"{self.label}: step {self.step_number} skipped, loss {mean}, gradient norm {norm}")
        if self._skipped_in_row >= self.config.most_skipped_steps:
            raise TrainingError(
                f"{self._skipped_in_row} steps in a row had a loss or gradient that is not finite",
                where=self.label,
                remedy="Lower the learning rates, or check the data; the last good checkpoint is kept",
            )

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        wanted = self.config.precision
        if wanted == "bf16" or (wanted == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()):
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

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


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut by a crash is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _cut_metrics(path: Path, last_step: int) -> None:
    """Drop the lines of steps that will be run again."""
    if path.exists():
        kept = [line for line in read_metrics(path) if line.get("step", 0) <= last_step]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8")


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


class _StopSignal:
    """Turns the first SIGINT or SIGTERM into a wish to stop after this step; the second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        console.say("Stopping after this step; the same command goes on from here.")
