"""The examples of a classifier: records to ids and class numbers, and batches of like length.

Why the classes come from the training part alone: a class that only the test part has could never be learnt, so meeting
one there is an error in the data and is said, not counted as a miss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duihua.data.halves import halve_rows
from duihua.data.records import Choice, Labelled, Split, hash_order
from duihua.data.source import Source
from duihua.errors import ConfigError, DataError
from duihua.models.classifier import collate
from duihua.text.task_inputs import Task, TaskInput, TaskInputs, text_count

POOL_BATCHES = 16
"""Batches whose examples are sorted by length together: rows of a batch then need few pads, and an epoch stays mixed."""

MISTAKES, SHOWN_CHARACTERS = 6, 300
"""Wrong held-out examples that are kept for people to read, and how much of each text."""


@dataclass(frozen=True)
class TaskExample:
    """A sequence or several, and the number of the class (of a choice: of the right option)."""

    input: TaskInput
    label: int


def read_records(
    source: Source, split: Split, task: Task, limit: int = 0, stage: str = "classify"
) -> list[Labelled | Choice]:
    """The records of a split for this task, at most `limit` (0: all), drawn by a hash. stage: named in errors.

    Raises ConfigError for a source of another kind, DataError where there is none or one has another number of texts.
    """
    wanted = "choices" if task == "multiple_choice" else "labelled"
    if source.kind != wanted:
        raise ConfigError(
            f"the task {task} needs {wanted}, and {source.name} holds {source.kind}",
            where=f"{stage}.source",
            remedy="Choose another task or source; `duihua data list` shows the kinds",
        )
    records = [record for record in source.records(split) if isinstance(record, Labelled | Choice)]
    if not records:
        raise DataError(
            f"there is no example in the {'training' if split == 'train' else 'held-out'} part",
            where=f"{stage}.source, {source.name}",
            remedy="Give more examples, or held-out ones apart (source.heldout)",
        )
    texts = text_count(task)
    for record in records:
        if isinstance(record, Labelled) and len(record.texts) != texts:
            raise DataError(
                f"the task {task} takes {'two texts' if texts == 2 else 'one text'}, found {len(record.texts)} in "
                f"{record.texts[0][:40]!r}",
                where=f"{stage}.source, {source.name}",
                remedy="Choose another task, or name the columns (source.columns.text, source.columns.text_b)",
            )
    return sorted(records, key=hash_order)[:limit] if limit else records


def class_names(records: Sequence[Labelled | Choice], where: str) -> tuple[str, ...]:
    """The classes of the training part, sorted; none for choices. Raises DataError where there is only one."""
    names = sorted({record.label for record in records if isinstance(record, Labelled)})
    if len(names) == 1:
        raise DataError(
            f"all training examples are of one class, {names[0]!r}",
            where=where,
            remedy="Give examples of two classes or more; check the label column (source.columns.label)",
        )
    return tuple(names)


def positive_class(wanted: str, classes: Sequence[str], stage: str = "classify") -> str | None:
    """The class that F1 is about: the wanted one, or the last of two; None where there are more. Raises ConfigError."""
    if wanted and wanted not in classes:
        raise ConfigError(
            f"there is no class {wanted!r}",
            where=f"{stage}.positive_class",
            remedy=f"Choose one of {', '.join(map(repr, classes))}" if classes else "Leave it out for multiple choice",
        )
    return wanted or (classes[-1] if len(classes) == 2 else None)


def encode_records(
    records: Sequence[Labelled | Choice], inputs: TaskInputs, classes: Sequence[str], where: str
) -> list[TaskExample]:
    """Records to examples, in order. Raises DataError for a class that the training part does not have."""
    numbers = {name: number for number, name in enumerate(classes)}
    examples = []
    for record in records:
        if isinstance(record, Choice):
            examples.append(TaskExample(inputs.encode((record.context,), record.options), record.answer))
            continue
        if record.label not in numbers:
            raise DataError(
                f"the held-out part has the class {record.label!r}, which no training example has",
                where=where,
                remedy=f"Known are {', '.join(map(repr, classes[:8]))}; check the labels or raise source.limit",
            )
        examples.append(TaskExample(inputs.encode(record.texts), numbers[record.label]))
    return examples


def cut_counts(examples: Sequence[TaskExample]) -> dict[str, Any]:
    """How many examples were longer than a sequence may be, and how many of all tokens that cost."""
    cut = sum(example.input.cut for example in examples)
    return {
        "examples": len(examples),
        "cut_examples": sum(example.input.cut > 0 for example in examples),
        "cut_tokens": cut,
        "tokens": sum(len(row) for example in examples for row in example.input.rows),
    }


def label_counts(records: Sequence[Labelled | Choice]) -> dict[str, int]:
    """Examples of each class; of choices, how often each place is the right one."""
    return dict(sorted(Counter(label_name(record) for record in records).items()))


def label_name(record: Labelled | Choice) -> str:
    """The class of a record; of a choice the right option's number, from 0."""
    return record.label if isinstance(record, Labelled) else str(record.answer)


def mistakes(
    records: Sequence[Labelled | Choice], predicted: Sequence[str], most: int = MISTAKES
) -> list[dict[str, Any]]:
    """Some records that were called wrongly, drawn by a hash: the beginnings of their texts, what is right and what was said.

    Of a choice the last two are the options themselves.
    """
    wrong = [pair for pair in zip(records, predicted, strict=True) if label_name(pair[0]) != pair[1]]
    wrong.sort(key=lambda pair: hash_order(pair[0], "mistakes"))
    found = []
    texts: tuple[str, ...]
    for record, said in wrong[:most]:
        if isinstance(record, Choice):
            texts, answers = (record.context,), (record.options[record.answer], record.options[int(said)])
        else:
            texts, answers = record.texts, (record.label, said)
        found.append({"texts": [_beginning(text) for text in texts], "truth": answers[0], "predicted": answers[1]})
    return found


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS].rstrip()} ..."


def option_places(records: Sequence[Labelled | Choice]) -> tuple[str, ...]:
    """ "0", "1", ... as many as the example with most options has."""
    return tuple(str(place) for place in range(max(len(r.options) for r in records if isinstance(r, Choice))))


class TaskBatches:
    """An endless source of batches; next() gives one step's micro-batches.

    An epoch shuffles the examples, sorts them by length within pools of 16 batches, and shuffles the batches; its last
    batch may be smaller. What it holds depends on the seed and its number alone, so the state is (epoch, batch).

    A micro-batch is {"token_ids" (r, t), "rows" (b, k), "labels" (b,), "examples_per_token" ()}: the last is the step's
    examples divided by its text tokens, over all micro-batches, which makes the language model's loss a mean over the
    tokens of the step however it is split (see `JointLoss`).
    """

    def __init__(
        self,
        examples: Sequence[TaskExample],
        *,
        batch: int,
        micro_batch: int,
        pad_id: int,
        vocabulary_size: int,
        seed: int,
    ) -> None:
        self.examples, self.batch, self.micro_batch = examples, batch, micro_batch
        self.pad_id, self.vocabulary_size, self.seed = pad_id, vocabulary_size, seed
        self.epoch, self.number = 0, 0
        self._batches = self._lay_out(0)

    @property
    def steps_an_epoch(self) -> int:
        """Updates in which every example is read once."""
        return -(-len(self.examples) // self.batch)

    def next(self) -> list[dict[str, Tensor]]:
        """One step's micro-batches."""
        if self.number >= len(self._batches):
            self.epoch, self.number = self.epoch + 1, 0
            self._batches = self._lay_out(self.epoch)
        chosen = [self.examples[place] for place in self._batches[self.number]]
        self.number += 1
        tokens = sum(id < self.vocabulary_size for e in chosen for row in e.input.rows for id in row)
        share = torch.tensor(len(chosen) / max(1, tokens))
        parts = [chosen[start : start + self.micro_batch] for start in range(0, len(chosen), self.micro_batch)]
        return [
            {
                **collate([example.input for example in part], self.pad_id),
                "labels": torch.tensor([example.label for example in part]),
                "examples_per_token": share,
            }
            for part in parts
        ]

    def halves(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A micro-batch as two, where the memory does not hold it: all sequences of an example stay together, in order."""
        apart = {name: batch[name] for name in ("rows", "labels")}
        parts = []
        for half in halve_rows(apart):
            used = half["rows"][half["rows"] >= 0]
            rows = torch.where(half["rows"] < 0, half["rows"], half["rows"] - used.min())
            share = batch["examples_per_token"]
            parts.append({**half, "rows": rows, "token_ids": batch["token_ids"][used], "examples_per_token": share})
        return parts

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch starts."""
        return {"epoch": self.epoch, "batch": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, with the same examples, sizes and seed."""
        self.epoch, self.number = int(state["epoch"]), int(state["batch"])
        self._batches = self._lay_out(self.epoch)

    def _lay_out(self, epoch: int) -> list[list[int]]:
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = generator.permutation(len(self.examples)).tolist()
        pool = POOL_BATCHES * self.batch
        ordered: list[int] = []
        for start in range(0, len(order), pool):
            ordered += sorted(order[start : start + pool], key=lambda place: self.examples[place].input.length)
        batches = [ordered[start : start + self.batch] for start in range(0, len(ordered), self.batch)]
        return [batches[place] for place in generator.permutation(len(batches))]
