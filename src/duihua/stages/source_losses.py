"""The loss of every source while a model is fine-tuned: on its held-out conversations, and on a few that are trained on.

Why by source: sources are seen between a fraction of once and a dozen times, so one is still being learnt while another is
already known by heart, and their mean shows neither. Why a sample that stands still and not the loss of the training steps:
that one is of weights which moved in between, of other conversations in each step, and of many more of the sources that weigh
more. Both losses here are of the same weights at the same moment, so that the gap between them means something.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from duihua import console
from duihua.data.packing import Example, encode_conversations
from duihua.data.pairs import stable_number
from duihua.data.records import Conversation, record_text
from duihua.data.source import Source
from duihua.evaluation.accuracy import Scored, mean_loss, score_conversations
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.held_out import HeldOut
from duihua.text.chat_template import ChatTemplate
from duihua.training.metrics_file import read_metrics

POOLED, HELD_OUT, TRAINED = "heldout_loss", "heldout_loss/", "train_loss/"
"""Names of the figures: of all held-out conversations together, and what stands before a source's label."""
WORK_SHARE = 0.1
"""Of the training's work, at most, for evaluations that nobody asked for by name."""
STEP_FORWARDS = 3
"""A token that is learnt from costs as much as three that are only read: a forward pass, and twice that backward."""
DRAWN = 4
"""Times as many training conversations are drawn as are wanted, since some are too long."""


@dataclass(frozen=True)
class LearntSource:
    """A source that is trained on. train: all of its training conversations; drawn: the first few of them by hash; heldout:
    those of its held-out ones that are measured, of `known`."""

    label: str
    weight: float
    train: Sequence[Conversation]
    drawn: list[Conversation]
    heldout: list[Conversation]
    known: int


def learnt_sources(
    sources: Sequence[Source],
    read: Sequence[tuple[Sequence[Conversation], float]],
    held_out: HeldOut,
    config: SFTConfig,
) -> list[LearntSource]:
    """read: of each source its training conversations and its weight."""
    most = DRAWN * max(config.compared_conversations, config.memorisation_prompts)
    labels = source_labels([source.name for source in sources])
    return [
        LearntSource(label, weight, train, hashed(train, most), held_out.of_source(place), held_out.known[place])
        for place, (label, (train, weight)) in enumerate(zip(labels, read, strict=True))
    ]


def source_labels(names: Sequence[str]) -> list[str]:
    """What each source is called in a figure's name: of a whole path the last part, and numbered where two are called alike."""
    short = [Path(name).name if Path(name).is_absolute() else name for name in names]
    return [f"{name} ({short[: n + 1].count(name)})" if short.count(name) > 1 else name for n, name in enumerate(short)]


def hashed(conversations: Sequence[Conversation], most: int) -> list[Conversation]:
    """The first `most` different conversations in an order by hash: a fair sample, and always the same."""
    different = {record_text(conversation): conversation for conversation in conversations}
    return [different[text] for text in nsmallest(most, different, key=lambda text: stable_number("compared", text))]


@dataclass(frozen=True)
class Losses:
    """What was scored with the same weights: held-out conversations of the sources `of`, and a training sample a source."""

    heldout: list[Scored]
    of: list[int]
    train: list[list[Scored]]

    def heldout_of(self, place: int) -> list[Scored]:
        """The held-out ones of one source."""
        return [one for one, source in zip(self.heldout, self.of, strict=True) if source == place]

    def only(self, places: Sequence[int]) -> Losses:
        """With these of the held-out ones alone."""
        return Losses([self.heldout[n] for n in places], [self.of[n] for n in places], self.train)


@dataclass(frozen=True)
class SourceMeter:
    """Measures `network` as it now is, and draws no random number.

    heldout: of the sources `of`; train: a sample a source. looked_at: places of those held-out ones that an evaluation during
    training measures.
    """

    network: nn.Module
    labels: list[str]
    heldout: list[Example]
    of: list[int]
    train: list[list[Example]]
    looked_at: list[int]
    device: str

    @property
    def tokens(self) -> int:
        """Tokens that an evaluation during training reads."""
        held = [self.heldout[n] for n in self.looked_at]
        return sum(example.length for part in (held, *self.train) for example in part)

    def __call__(self, step: int) -> dict[str, float]:
        """The figures of an evaluation during training."""
        return self.figures(self.measure(self.looked_at))

    def measure(self, places: Sequence[int] | None = None) -> Losses:
        """Score the held-out ones at these places, None for all, and the sample of every source."""
        held = range(len(self.heldout)) if places is None else places
        parts = [[self.heldout[n] for n in held], *self.train]
        scored = iter(score_conversations(self.network, [one for part in parts for one in part], self.device))
        heldout, *train = [list(islice(scored, len(part))) for part in parts]
        return Losses(heldout, [self.of[n] for n in held], train)

    def figures(self, losses: Losses) -> dict[str, float]:
        """{"heldout_loss/LABEL", "train_loss/LABEL"}: nats a token, without those of no conversation; and where all held-out
        conversations were scored, "heldout_loss" of them all."""
        groups = {POOLED: losses.heldout if len(losses.heldout) == len(self.heldout) else []}
        for place, label in enumerate(self.labels):
            groups[HELD_OUT + label] = losses.heldout_of(place)
            groups[TRAINED + label] = losses.train[place]
        return {name: mean_loss(scored) for name, scored in groups.items() if scored}

    def curve(self, directory: Path, before: Losses, after: Losses | None, steps: int) -> list[dict[str, Any]]:
        """The figures over the steps, a row an evaluation, of the same conversations in each: `before`, the lines of
        metrics.jsonl, and `after` where it is of the weights of the last step."""
        rows: dict[int, dict[str, Any]] = {0: self.figures(before.only(self.looked_at))}
        for line in read_metrics(directory / "metrics.jsonl"):
            found = {name: line[name] for name in rows[0] if name in line}
            if found and "learning_rate" not in line:
                rows[int(line["step"])] = found
        if after is not None:
            rows[steps] = self.figures(after.only(self.looked_at))
        return [{"step": step, **rows[step]} for step in sorted(rows)]


def source_meter(
    network: nn.Module,
    parts: Sequence[LearntSource],
    held_out: HeldOut,
    config: SFTConfig,
    template: ChatTemplate,
    length: int,
    device: str,
) -> SourceMeter:
    """A meter of the held-out conversations and of a sample of each source; says which sources have nothing held out.

    During training it looks at no more held-out conversations of a source than at training ones, unless somebody asked for
    evaluations by name: then at all, as before and after.
    """
    heldout: list[Example] = []
    of: list[int] = []
    for conversation, place in zip(held_out.conversations, held_out.of, strict=True):
        found = encode_conversations([conversation], template, length).examples
        heldout += found
        of += [place] * len(found)
    samples = []
    for part in parts:
        encoded = (encode_conversations([one], template, length, config.long_conversations) for one in part.drawn)
        fitting = islice((made.examples for made in encoded if made.examples), config.compared_conversations)
        samples.append([example for found in fitting for example in found])
    if not heldout:
        console.warn("sft: no conversation is held out, so nothing is measured on unseen ones")
    for place, part in enumerate(parts):
        if heldout and place not in of:
            console.warn(f"sft: {part.label}: {_why_not(part.known)}")
    asked = config.trainer.evaluate_every or config.trainer.keep_best
    most = len(heldout) if asked else config.compared_conversations
    taken = [0] * len(parts)
    looked_at = []
    for n, place in enumerate(of):
        taken[place] += 1
        if taken[place] <= most:
            looked_at.append(n)
    return SourceMeter(network, [part.label for part in parts], heldout, of, samples, looked_at, device)


def _why_not(known: int) -> str:
    if not known:
        return "no conversation is held out, so its loss on unseen ones is not known"
    return f"none of its {known} held-out conversations is among those measured; raise heldout_conversations"


def with_evaluations(config: SFTConfig, tokens: int) -> SFTConfig:
    """The settings with the steps between two evaluations, each of which reads `tokens` tokens: what the trainer is told, else
    evenly spread, and none where one would cost too much. None unasked where weights are spread over ranks: the whole
    model would have to fit beside its part."""
    trainer = config.trainer
    if trainer.evaluate_every or trainer.sharding == "full" or not tokens:
        return config
    affordable = int(WORK_SHARE * STEP_FORWARDS * config.steps * config.batch_tokens / tokens)
    count = min(config.evaluations, affordable, config.steps)
    every = math.ceil(config.steps / count) if count else 0
    return dataclasses.replace(config, trainer=dataclasses.replace(trainer, evaluate_every=every))
