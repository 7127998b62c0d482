"""The classifier that one asks: texts in, labels and probabilities out. The command line and the server use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duihua.models.classifier import class_probabilities
from duihua.models.task_bundle import TaskBundle, load_task_bundle
from duihua.text.task_inputs import TaskInput


@dataclass(frozen=True)
class Question:
    """What is to be classified: one text, two texts, or a context (one text) with options."""

    texts: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """label: the likeliest class; of a choice the option's number from 0, as text. probabilities: of every label, in the
    order of the classes. tokens: that were read. cut_tokens: of the texts that were left out because they did not fit."""

    label: str
    probabilities: dict[str, float]
    tokens: int
    cut_tokens: int


class ClassifierModel:
    """A classifier bundle, ready to answer."""

    def __init__(self, bundle: TaskBundle) -> None:
        self.bundle = bundle
        self.settings = bundle.settings

    @classmethod
    def load(cls, directory: str | Path, device: str = "cpu") -> ClassifierModel:
        """Read a classifier bundle. Raises BundleError for anything else."""
        return cls(load_task_bundle(directory, device))

    def encode(self, question: Question) -> TaskInput:
        """The question as the model reads it. Raises DataError where it is not of the task's form."""
        return self.bundle.inputs.encode(question.texts, question.options)

    def predict(self, inputs: Sequence[TaskInput]) -> list[Prediction]:
        """Answer what `encode` gave, in its order."""
        chances = class_probabilities(self.bundle.classifier, inputs, self.bundle.tokenizer.pad_id)
        return [self._prediction(example, chance) for example, chance in zip(inputs, chances, strict=True)]

    def _prediction(self, example: TaskInput, chances: Sequence[float]) -> Prediction:
        names = self.settings.classes or tuple(str(number) for number in range(len(chances)))
        best = max(range(len(chances)), key=lambda place: chances[place])
        tokens = sum(map(len, example.rows))
        return Prediction(names[best], dict(zip(names, chances, strict=True)), tokens, example.cut)
