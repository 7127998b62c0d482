"""The one training loop. To know what happens in a step, read `Trainer.step`; to know the loss, read the stage.

Several ranks (training/ranks.py) run the same loop on parts of the same steps: what they must agree on is gathered
(training/gradients.py), and what only one may do (write, print, evaluate) is the first one's. docs/design.md has the rules.

Nothing is lost: a checkpoint is written on a time interval, before an evaluation, on SIGINT and SIGTERM and at the end,
and `run` goes on from the newest whole one. On a CPU with a fixed number of threads a run that was interrupted ends
with the same bits as one that was not.

The order within a step matters under fp16: the gradients are divided by the loss scale before their norm is taken and
clipped, or the threshold would be that of a gradient thousands of times larger (Micikevicius et al. 2018, section 3.2).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from duihua import console
from duihua.engine.randomness import sample_seed
from duihua.errors import TrainingError
from duihua.nn.lora import frozen_fingerprint
from duihua.training.compilation import prepare_network
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.forecast import Forecast
from duihua.training.gradients import Gradients
from duihua.training.loss import Batch, BatchSource, Loss, LossParts, TrainingResult
from duihua.training.micro_batches import MicroBatches
from duihua.training.optimizers import Optimizer
from duihua.training.precision import compute_dtype, gradient_scaler
from duihua.training.progress import write_plan
from duihua.training.ranks import current
from duihua.training.run_checkpoints import RunCheckpoints
from duihua.training.run_metrics import RunMetrics
from duihua.training.schedules import Plateau, rate_factor
from duihua.training.spikes import Skips, Spikes
from duihua.training.stopping import StopSignal

if TYPE_CHECKING:
    from duihua.training.sharding import Sharded

__all__ = ["Batch", "BatchSource", "Loss", "LossParts", "Trainer", "TrainingResult"]


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
        facts: Mapping[str, float] | None = None,
    ) -> None:
        """facts: for whoever watches, beside the number of steps (training/progress.py). Raises TrainingError."""
        if steps < 1:
            raise TrainingError(
                f"steps must be at least 1, found {steps}", where=label or "trainer", remedy="Train for 1 step or more"
            )
        self.network, self.loss, self.batches = network, loss, batches
        self.steps, self.schedule, self.config = steps, schedule, config
        self.directory, self.device, self.evaluate, self.label = directory, torch.device(device), evaluate, label
        self.ranks, self.seed, self.facts = current(), seed, dict(facts or {})
        self.dtype = compute_dtype(config.precision, self.device)
        self.scaler = gradient_scaler(config, self.dtype, self.device)
        self.plateau = Plateau(schedule) if schedule.kind == "plateau" else None
        prepare_network(network, config, self.device, steps, label)
        self.ranks.copy_first(network.state_dict().values())
        self._sharded: Sharded | None = None
        if config.sharding == "full" and self.ranks.count > 1:
            from duihua.training.sharding import Sharded  # takes seconds to import

            self._sharded = Sharded(network.cpu(), self.ranks, self.device, label)
            self._sharded.check(batches, self.scaler)
        self.model = self._sharded.model if self._sharded else network.to(device)  # what is trained
        orthogonal = torch.bfloat16 if self.dtype is torch.bfloat16 else None
        self.optimizer = Optimizer(self.model, optimizer, self._sharded, orthogonal)
        self._frozen = frozen_fingerprint(network)
        self.step_number = 0
        self.tokens = 0
        self.seconds = 0.0
        self._saved_at = -1
        self._micro_batches = MicroBatches(batches, label, self.ranks)
        self._gradients = Gradients(
            self.model,
            self._micro_batches,
            self.optimizer,
            device=self.device,
            dtype=self.dtype,
            scaler=self.scaler,
            ranks=self.ranks,
            sharded=self._sharded,
            label=label,
        )
        self._spikes = Spikes(config.spike_factor)
        self._skips = Skips(config.most_skipped_steps, label)
        self._metrics = RunMetrics(directory, self.ranks)
        self._checkpoints = RunCheckpoints(directory, config, label, evaluates=evaluate is not None)
        torch.manual_seed(seed)

    @property
    def skipped(self) -> int:
        """Steps that were not taken, in all parts of the run."""
        return self._skips.count

    @property
    def last_metrics(self) -> dict[str, float]:
        """The means of the last logged line."""
        return self._metrics.last

    def run(self) -> TrainingResult:
        """Train to the last step, from the newest checkpoint if there is one.

        Raises KeyboardInterrupt after saving when asked to stop, TrainingError when the loss is not finite for too long.
        """
        if self.ranks.first:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._resume()
        if self.ranks.first:
            write_plan(self.directory, {"steps": self.steps, "ranks": self.ranks.count, **self.facts})
        last_save = started = time.monotonic()
        seconds_before = self.seconds
        tokens_before = self.tokens
        if self._evaluation_missing():
            self._evaluate()
        with (
            self._checkpoints,
            StopSignal(self.ranks.count > 1) as stop,
            console.progress(self.steps, "step", self.label, self.step_number) as bar,
        ):
            forecast = Forecast(self.label, self.steps, self.step_number, str(self.device))
            while self.step_number < self.steps:
                shown = self.step()
                forecast.look(self.step_number)
                now = time.monotonic()
                self.seconds = seconds_before + (now - started)
                if self.step_number % self.config.log_every == 0 or self.step_number == self.steps:
                    speed = (self.tokens - tokens_before) / max(1e-9, now - started)
                    self._metrics.log(
                        self.step_number, self.tokens, {**shown, "tokens_per_second": speed}, self.seconds
                    )
                bar.advance(1, loss=self.last_metrics.get("loss", shown["loss"]))
                evaluating = bool(self.config.evaluate_every) and (
                    self.step_number % self.config.evaluate_every == 0 and self.evaluate is not None
                )
                by_count = bool(self.config.checkpoint_steps) and self.step_number % self.config.checkpoint_steps == 0
                asked = self.ranks.gather([stop.asked, now - last_save > self.config.checkpoint_seconds])
                stopping, due = any(one for one, _ in asked), asked[0][1]
                for_good = evaluating or stopping or self.step_number == self.steps
                if due or by_count or for_good:
                    self.save(wait=for_good)
                    last_save = time.monotonic()
                if stopping:  # at the last step too: else a run of several stages would go on with the next
                    self.ranks.wait()  # a rank that ends takes the others with it, and the first one is still writing
                    raise KeyboardInterrupt
                if evaluating:
                    self._evaluate()
        if self._sharded:
            self._sharded.fill(self.network)
            self.network.to(self.device)
        if self.config.end_with == "best" and self.ranks.first:
            self._checkpoints.put_best(self.network)
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
        micro_batches = self._micro_batches.next()
        factor = rate_factor(self.step_number, self.steps, self.schedule) * (
            self.plateau.factor if self.plateau else 1.0
        )
        self.model.train()
        if self.ranks.count > 1:  # what each draws depends on no other rank, and on nothing that a checkpoint must keep
            torch.manual_seed(sample_seed(self.seed, self.step_number, self.ranks.number, 0))
        total, weight, divisor, tokens, sums = self._gradients.of_step(micro_batches, self.loss)
        self.tokens += tokens
        if self.scaler is not None:
            self.scaler.unscale_(cast(torch.optim.Optimizer, self.optimizer))
        norm = self._gradients.scale_and_clip(divisor / max(weight, 1e-12), self.config.clip_norm)
        mean = total / max(weight, 1e-12)
        self.step_number += 1
        reason = self._spikes.why_not(mean, norm, weight)
        if reason:
            self._skips.skip(self.step_number, reason, self.scaler)
        else:
            self.optimizer.step(factor)
            self._skips.took()
        if not math.isfinite(mean):  # counted as a skipped step, and in no mean
            total, weight, sums = 0.0, 0.0, {}
        if self.plateau is not None:
            self.plateau.observe(total, weight)
        shown = {"loss": mean, "gradient_norm": norm, "learning_rate": self.optimizer.rate(factor)}
        if self.scaler is not None:
            self.scaler.update()  # after a step with a gradient that is not finite: half the scale
            shown["loss_scale"] = self.scaler.get_scale()
        if self.skipped or self.scaler is not None:
            shown["skipped_steps"] = float(self.skipped)
        self._metrics.add({"loss": (total, weight), **sums})
        return shown

    def save(self, wait: bool = True) -> None:
        """Write a checkpoint of the present state, unless the newest is already of this step. wait: until it is on disk; else
        it is written while training goes on."""
        if self._saved_at == self.step_number:
            return
        if self._sharded:
            self._sharded.fill(self.network)
        state: dict[str, Any] = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "skipped": self._skips.count,
            "window": self._metrics.window(),
            "last_metrics": self.last_metrics,
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "random": torch.get_rng_state(),
            "frozen": self._frozen,
            "halvings": self._micro_batches.halvings,
            "norms": self._spikes.state(),
            "skipped_in_row": self._skips.in_row,
        }
        for name, part in (("scaler", self.scaler), ("plateau", self.plateau)):
            if part is not None:
                state[name] = part.state_dict()
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        if self.ranks.first:
            self._checkpoints.write(self.step_number, self.network, state, wait)
        self._saved_at = self.step_number

    def _resume(self) -> None:
        found = self._checkpoints.load(self.network, self._frozen, self.ranks)
        kept = 0
        if found is not None:
            step, state = found
            if self._sharded:
                self._sharded.take(self.network)
            self.optimizer.load_state_dict(state["optimizer"])
            self.batches.load_state_dict(state["batches"])
            torch.set_rng_state(state["random"].to(torch.uint8))
            if self.device.type == "cuda" and "random_cuda" in state:
                torch.cuda.set_rng_state(state["random_cuda"].to(torch.uint8), self.device)
            for name, part in (("scaler", self.scaler), ("plateau", self.plateau)):
                if part is not None and name in state:
                    part.load_state_dict(state[name])
            self.step_number, self.tokens = step, int(state["tokens"])
            self.seconds = float(state["seconds"])
            self._skips.load(int(state["skipped"]), int(state.get("skipped_in_row", 0)))
            self._metrics.load(state["window"], state["last_metrics"])
            self._micro_batches.halvings = int(state.get("halvings", 0))
            self._spikes.load_state(state.get("norms", []))
            self._saved_at = step
            kept = step
            if step < self.steps:
                console.say(f"{self.label}: going on from step {step} of {self.steps}")
        self._metrics.cut(kept)

    def _evaluate(self) -> None:
        """Measure the present weights and write the figures down; the other ranks wait for it at the next step."""
        if self._sharded:
            self._sharded.fill(self.network)
        if not self.ranks.first:
            return
        assert self.evaluate is not None
        home = next(self.network.parameters()).device
        self.network.to(self.device)
        found = self.evaluate(self.step_number)
        self.network.to(home)
        self._checkpoints.check_figures(found)
        self._metrics.write({"step": self.step_number, **found})

    def _evaluation_missing(self) -> bool:
        """Whether the run was ended between the checkpoint of an evaluation's step and the line that the evaluation writes."""
        every = self.config.evaluate_every
        if self.evaluate is None or not every or not self.step_number or self.step_number % every:
            return False
        return not self._metrics.evaluated(self.step_number)
