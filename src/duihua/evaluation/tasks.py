"""Multiple choice by likelihood: how often a language model finds the right answer the likeliest, beside what guessing scores.

acc: the answer with the highest log-likelihood, as it is: short answers have fewer tokens to be unlikely in, so they win
more often than they should. acc_norm: log-likelihood a character of the answer (the harness's rule; acc_bytes: a byte). Of
equal ones the first wins. LAMBADA is right when every token of the word was the likeliest; its perplexity is a word's.

What such a figure is not. A small model scores about what guessing does on most of these, and a point above chance within the
interval says nothing; acc_norm of a model that has learned nothing but lengths is above chance on HellaSwag. Text of the
tests may stand in the training text (of the starter data it was not looked for). And a likelihood is no conversation: a
model that answers well in chat may score low here, and the reverse.

From: L. Gao et al., EleutherAI's lm-evaluation-harness, 2021; T. Brown et al., "Language Models are Few-Shot Learners", 2020,
section 2.4 (scoring answers by likelihood, by length).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duihua.errors import BundleError
from duihua.evaluation.intervals import Interval, wilson
from duihua.evaluation.language_model import LanguageModel
from duihua.evaluation.likelihood import Likelihood, likelihoods
from duihua.evaluation.significance import as_rows, bootstrap_interval
from duihua.evaluation.task_questions import TaskItem


@dataclass(frozen=True)
class ItemOutcome:
    """What the model made of one question. chosen, chosen_norm, chosen_bytes: the answer by each rule; of a last word 0
    where it was guessed and -1 where not. nats: -log likelihood of the right answer. cut: whether the context was. moved:
    whether the end of the context is scored with each answer, because a token lies across the border (likelihood.py): acc is
    as it should be then, acc_norm a little off, since each answer's characters divide the part that all share."""

    answer: int
    options: int
    chosen: int
    chosen_norm: int
    chosen_bytes: int
    nats: float
    cut: bool
    part: str
    moved: bool = False

    @property
    def right(self) -> bool:
        """By log-likelihood as it is."""
        return self.chosen == self.answer


@dataclass(frozen=True)
class TaskFigures:
    """A model's figures on one task. chance: what guessing scores. perplexity: of last words only. cut, moved: questions."""

    task: str
    acc: Interval
    acc_norm: Interval | None
    acc_bytes: Interval | None
    chance: float
    perplexity: Interval | None
    cut: int
    parts: dict[str, Interval]
    moved: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON."""
        found: dict[str, Any] = {"items": self.acc.n, "chance": self.chance, "acc": self.acc.to_dict()}
        for name in ("acc_norm", "acc_bytes", "perplexity"):
            interval = getattr(self, name)
            if interval is not None:
                found[name] = interval.to_dict()
        found["contexts_cut"] = self.cut
        found["borders_moved"] = self.moved
        if self.parts:
            found["parts"] = {name: interval.to_dict() for name, interval in self.parts.items()}
        return found


def ask(
    model: LanguageModel,
    items: Sequence[TaskItem],
    *,
    separator: bool = False,
    advance: Callable[[int], None] = lambda requests: None,
) -> list[ItemOutcome]:
    """Put every question to the model, in order. advance: told how many more answers are scored."""
    made = iter(
        likelihoods(model, [each for item in items for each in item.requests], separator=separator, advance=advance)
    )
    return [outcome(item, [next(made) for _ in item.requests], model) for item in items]


def outcome(item: TaskItem, made: Sequence[Likelihood], model: LanguageModel) -> ItemOutcome:
    """The answer that each rule chooses."""
    logs = np.array([one.log_likelihood for one in made])
    cut, moved = any(one.cut for one in made), any(one.moved for one in made)
    if len(made) == 1:
        if made[0].greedy is None:
            raise BundleError(
                "this model does not say which token is likeliest, which a last word needs",
                where=model.name,
                remedy="Use a decoder or a recurrent network",
            )
        guessed = 0 if made[0].greedy else -1
        return ItemOutcome(0, 1, guessed, guessed, guessed, float(-logs[0]), cut, item.part, moved)
    characters, sizes = (np.maximum(1, lengths) for lengths in item.lengths())
    chosen, norm, by_bytes = (int(np.argmax(scores)) for scores in (logs, logs / characters, logs / sizes))
    return ItemOutcome(item.answer, len(made), chosen, norm, by_bytes, float(-logs[item.answer]), cut, item.part, moved)


def task_figures(
    name: str, outcomes: Sequence[ItemOutcome], *, normalised: bool = True, rounds: int = 1000, seed: int = 0
) -> TaskFigures:
    """Shares of right answers with Wilson's intervals; of last words also the perplexity, with a bootstrap interval."""
    n = len(outcomes)
    last_word = all(each.options == 1 for each in outcomes)
    parts = sorted({each.part for each in outcomes} - {""})
    norm = [each.chosen_norm == each.answer for each in outcomes]
    by_bytes = [each.chosen_bytes == each.answer for each in outcomes]
    return TaskFigures(
        task=name,
        acc=wilson(sum(each.right for each in outcomes), n),
        acc_norm=wilson(sum(norm), n) if normalised and not last_word else None,
        acc_bytes=wilson(sum(by_bytes), n) if normalised and not last_word else None,
        chance=0.0 if last_word else sum(1 / each.options for each in outcomes) / n if n else math.nan,
        perplexity=_word_perplexity(outcomes, rounds, seed) if last_word else None,
        cut=sum(each.cut for each in outcomes),
        moved=sum(each.moved for each in outcomes),
        parts={part: _share([each for each in outcomes if each.part == part]) for part in parts},
    )


def _share(outcomes: Sequence[ItemOutcome]) -> Interval:
    return wilson(sum(each.right for each in outcomes), len(outcomes))


def _word_perplexity(outcomes: Sequence[ItemOutcome], rounds: int, seed: int) -> Interval:
    def score(sums: NDArray[np.float64]) -> float:
        return math.exp(min(sums[0] / sums[1], 700.0))

    rows = as_rows([each.nats for each in outcomes], [1.0] * len(outcomes))
    return bootstrap_interval(rows, score, rounds=rounds, seed=seed)
