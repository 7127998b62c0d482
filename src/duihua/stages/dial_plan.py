"""What a training will cost, before it starts, and whether that held, after it.

The plan is made once and kept as dial.json in the stage's folder: a training that was stopped goes on with the settings that
it began with, however fast the machine is then, so that it ends with the same bits.

Time and memory are measured by real updates of the shape on the real text, and by scoring some of the held-out text; nothing
of that is kept. Bits per byte come from the law, and only where it speaks: for the text, vocabulary and family that it was
fitted to.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from duihua import console
from duihua.config import build, to_mapping
from duihua.data.loaders import StreamedBatches
from duihua.data.records import Document
from duihua.data.shards import Shard
from duihua.errors import ConfigError
from duihua.evaluation.bits_per_byte import bits_per_byte
from duihua.files import read_json, write_json
from duihua.models.activations import count_activations
from duihua.models.bigram_start import Bigrams, start_from_bigrams
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.imagined import build_imagined
from duihua.models.work import multiplying_weights, training_flops
from duihua.stages.configs.pretrain import PretrainConfig
from duihua.stages.context import StageContext
from duihua.stages.dial import derived_settings, tokens_of
from duihua.stages.dial_choice import Measured, choose
from duihua.stages.first_weights import bigrams_of
from duihua.text.tokenizer import Tokenizer
from duihua.training.compilation import compiles
from duihua.training.config import deciding, saved_like
from duihua.training.memory import forget_peak, free_memory, peak_memory
from duihua.training.optimizers import state_bytes
from duihua.training.precision import compute_dtype
from duihua.training.ranks import current
from duihua.training.scaling_law import Law, stored_law
from duihua.training.speed import ENDLESS, LONGEST_STEP, measure_products, measure_steps
from duihua.training.trainer import Loss

PLAN_FILE = "dial.json"
HOLDS = 0.2
"""A prediction holds when what came is within 20 % of it."""
MEASURING_SHARE, LEAST_SECONDS, MOST_SECONDS = 0.01, 0.5, 4.0
"""Each shape is timed for 1 % of the minutes, and no less and no more than these seconds."""
SCORED_BYTES = 20_000
"""Held-out text that is scored to time the evaluation."""
MOST_ROOM = 0.8
"""Share of the free memory that a step may take."""
MOST_EPOCHS = 4.0
"""Text read more often teaches less and less (Muennighoff et al. 2023)."""
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What the dial stands for. asked: the settings as they were given. setup_seconds: until training could start. bits: of
    the law, {"bits", "low", "high"}, None where it does not speak, and then `silent` says why."""

    asked: dict[str, Any]
    size: int
    config: PretrainConfig
    derived: dict[str, Any]
    kept: list[str]
    measured: Measured
    setup_seconds: float
    bits: dict[str, float] | None
    silent: str
    law: dict[str, Any]

    @property
    def training_seconds(self) -> float:
        return self.config.steps * self.measured.whole_step_seconds

    @property
    def seconds(self) -> float:
        """Of the whole stage."""
        return (
            self.setup_seconds + self.measured.start_seconds + self.training_seconds + self.measured.evaluation_seconds
        )

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON, for dial.json."""
        return asdict(self) | {"config": to_mapping(self.config)}

    @classmethod
    def from_mapping(cls, found: dict[str, Any]) -> Plan:
        config, measured = build(PretrainConfig, found["config"]), Measured(**found["measured"])
        return cls(**found | {"config": config, "measured": measured})


class World:
    """The text and the machine that a plan is for."""

    def __init__(
        self,
        config: PretrainConfig,
        context: StageContext,
        tokenizer: Tokenizer,
        shards: list[Shard],
        repeats: list[float],
        heldout: Iterable[Document],
        loss: Loss,
    ) -> None:
        self.config, self.context, self.tokenizer, self.loss = config, context, tokenizer, loss
        self.shards, self.repeats = shards, repeats
        self._first: list[Document] = []
        self._heldout_bytes = self._first_bytes = self._heldout_count = 0
        self.counted: Bigrams | None = None
        """Once a start from bigrams was measured, what was counted for it."""
        self._start_seconds = 0.0
        for document in heldout:
            size = len(document.text.encode("utf-8"))
            self._heldout_bytes += size
            self._heldout_count += 1
            if self._first_bytes < SCORED_BYTES:
                self._first.append(document)
                self._first_bytes += size
        minutes = float("inf") if config.minutes is None else config.minutes
        self.seconds = min(MOST_SECONDS, max(LEAST_SECONDS, MEASURING_SHARE * 60 * minutes))

    def measure(self, settings: PretrainConfig) -> Measured:
        """Real updates for some seconds, and some of the scoring."""
        shape = settings.shape.decoder(self.tokenizer.vocabulary_size, settings.length)
        device = self.context.device
        work = training_flops(shape, 1)
        rows, micro_batches = settings.rows, settings.micro_batches
        bound = measure_products(
            shape.width, shape.feed_forward_width, rows, settings.length, work, device=device, seconds=0.2
        )
        while bound.step_seconds * micro_batches > LONGEST_STEP and (rows > 1 or micro_batches > 1):
            if micro_batches > 1:
                micro_batches = max(1, micro_batches // 2)
            else:
                rows //= 2
                bound = replace(bound, batch=rows)
        forget_peak(device)
        network = Decoder(shape).initialise(self.context.seed)
        first = self._seconds_to_start(network, settings)
        batches = StreamedBatches(
            self.shards,
            self.repeats,
            rows,
            settings.length,
            micro_batches,
            self.context.seed,
            self.tokenizer.end_of_text_id,
            settings.mask_documents,
        )
        speed = measure_steps(
            network,
            self.loss,
            self.tokenizer.vocabulary_size,
            rows * micro_batches,
            settings.length,
            work,
            config=replace(settings.trainer, evaluate_every=0, keep_best="", end_with="last"),
            optimizer=settings.optimizer,
            device=device,
            seconds=self.seconds,
            batches=batches,
        )
        evaluation = self._evaluation_seconds(network, settings.length)
        every = settings.trainer.evaluate_every
        looking = evaluation * self._share_looked_at(settings.heldout_documents) / every if every else 0.0
        memory = peak_memory(device)
        del network
        gc.collect()
        step_tokens = settings.rows * settings.micro_batches * settings.length
        return Measured(
            step_tokens / speed.tokens_per_second, step_tokens, speed.steps, evaluation, memory, first, looking
        )

    def _seconds_to_start(self, network: Decoder, settings: PretrainConfig) -> float:
        """Of making the first weights of what has been counted; measured once, other shapes take much the same."""
        if settings.start == "random":
            return 0.0
        if self.counted is None:
            self.counted = bigrams_of(self.shards, self.repeats, self.tokenizer.vocabulary_size)
            started = time.perf_counter()
            start_from_bigrams(network, self.counted, smoothing=settings.bigram_smoothing, seed=self.context.seed)
            self._start_seconds = time.perf_counter() - started
        return self._start_seconds

    def _evaluation_seconds(self, network: Decoder, length: int) -> float:
        """Of scoring all held-out text, by scoring the first documents."""
        if not self._first_bytes:
            return 0.0
        started = time.perf_counter()
        bits_per_byte(network, self.tokenizer, self._first, length, device=self.context.device)
        return (time.perf_counter() - started) * self._heldout_bytes / self._first_bytes

    def _share_looked_at(self, documents: int) -> float:
        """Of the held-out documents, by count: those that an evaluation during training reads are drawn by a hash."""
        return min(1.0, documents / self._heldout_count) if self._heldout_count else 0.0

    def pieces(self, shape: DecoderConfig, rows: int) -> int:
        """Micro-batches into which a step of `rows` must be cut, to fit into the memory. ConfigError where none does."""
        room = free_memory(self.context.device)
        if room is None:
            return 1
        network = build_imagined(shape)
        weights = 8 * sum(weight.numel() for weight in network.parameters())  # with their gradients
        weights += state_bytes(network, self.config.optimizer)
        dtype, pieces = compute_dtype(self.config.trainer.precision, self.context.device), 1
        while True:
            kept = count_activations(network, max(1, rows // pieces), shape.context, dtype, self.context.device)
            activations = kept.checkpointed if self.config.trainer.gradient_checkpointing else kept.plain
            needed = weights + activations + kept.loss
            if needed <= MOST_ROOM * room:
                return pieces
            if pieces >= rows:
                raise ConfigError(
                    f"a step of {shape.layers} layers, {shape.width} wide, needs {needed / GIB:.1f} GiB, and "
                    f"{room / GIB:.1f} are free",
                    where="size",
                    remedy="Choose a smaller size, or trainer.gradient_checkpointing=true",
                )
            pieces *= 2


def plan(config: PretrainConfig, context: StageContext, world: World, started: float) -> Plan:
    """The plan in the stage's folder, or a new one that is written there. started: of the stage, by time.monotonic().

    Raises ConfigError where the dial asks for what cannot be.
    """
    path, asked = context.directory / PLAN_FILE, deciding(config)
    stored = read_plan(path)
    if stored is not None and stored.asked == asked:
        console.say(f"pretrain: the settings of {PLAN_FILE}, as this training began")
        return replace(stored, config=replace(stored.config, trainer=saved_like(stored.config.trainer, config.trainer)))
    if current().count > 1:
        raise ConfigError(
            "the dial measures one process, and there are several ranks",
            where="size",
            remedy=f"Run it on one, and give the settings in its {PLAN_FILE} to all ranks",
        )
    console.say("pretrain: measuring this machine for the dial ...")
    law = stored_law()
    choice = choose(
        config,
        law,
        world.tokenizer.vocabulary_size,
        world.measure,
        world.pieces,
        lambda: time.monotonic() - started,
    )
    choice = replace(choice, config=compiled_as_measured(choice.config, context.device))
    shape = choice.config.shape.decoder(world.tokenizer.vocabulary_size, choice.config.length)
    silent = why_silent(law, choice.config, shape)
    expected = law.expect(multiplying_weights(shape), tokens_of(choice.config))
    made = Plan(
        asked=asked,
        size=choice.size,
        config=choice.config,
        derived=derived_settings(config, choice.config),
        kept=config.kept(),
        measured=choice.measured,
        setup_seconds=time.monotonic() - started,
        bits=None if silent else asdict(expected),
        silent=silent,
        law={name: law.about.get(name) for name in ("date", "sources", "vocabulary_size", "processor", "commit")},
    )
    write_json(path, made.to_mapping())
    return made


def compiled_as_measured(config: PretrainConfig, device: str) -> PretrainConfig:
    """`config`, its blocks compiled where those that were measured were: `auto` goes by the number of steps, which nobody knew
    then."""
    trainer, place = config.trainer, torch.device(device)
    measured = compiles(trainer, place, ENDLESS)
    if compiles(trainer, place, config.steps) == measured:
        return config
    return replace(config, trainer=replace(trainer, compile="blocks" if measured else "off"))


def read_plan(path: Path) -> Plan | None:
    """The plan of a file, or None where there is none."""
    if not path.exists():
        return None
    found = read_json(path)
    try:
        return Plan.from_mapping(found)
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"is no plan of the dial ({error})", where=str(path), remedy="Remove it; the machine is measured again"
        ) from error


def why_silent(law: Law, config: PretrainConfig, shape: DecoderConfig) -> str:
    """Why the law says nothing of the bits per byte of these settings; empty where it does."""
    about = law.about
    if [source.name for source in config.sources] != about.get("sources") or any(
        source.limit or source.weight != 1.0 for source in config.sources
    ):
        return f"the law was fitted on {', '.join(about.get('sources', []))}"
    if shape.vocabulary_size != about.get("vocabulary_size"):
        return f"the law was fitted with a vocabulary of {about.get('vocabulary_size'):,}"
    if config.shape.preset != about.get("preset") or config.optimizer.kind != about.get("optimizer"):
        return f"the law was fitted on the shape {about.get('preset')} with {about.get('optimizer')}"
    if config.start != about.get("start", "random"):
        return f"the law was fitted to first weights of the kind {about.get('start', 'random')}"
    if config.mask_documents:
        return "the law was fitted to documents that see what stands before them"
    if config.length != about.get("length"):
        return f"the law was fitted with rows of {about.get('length')}"
    return ""
