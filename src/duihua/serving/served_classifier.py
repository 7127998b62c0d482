"""A classifier behind the API: an answer is one forward pass over all that a request holds, over in milliseconds, so that
requests take turns (`turns.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from duihua.errors import DataError
from duihua.serving.turns import Turns
from duihua.text.task_inputs import Task

if TYPE_CHECKING:
    from duihua.engine.classifier_model import ClassifierModel, Prediction, Question


@dataclass(frozen=True)
class ClassifierCard:
    """What the API says about a classifier. context_length: most tokens of a sequence; longer texts are cut."""

    name: str
    parameters: int
    context_length: int
    task: Task
    classes: tuple[str, ...]
    created: int = field(default_factory=lambda: int(time.time()))


class ServedClassifier:
    """A classifier bundle and its card. May be called from any thread."""

    def __init__(self, name: str, model: ClassifierModel, most_waiting: int) -> None:
        self._model = model
        self.turns = Turns(name, most_waiting)
        classifier = model.bundle.classifier
        self.card = ClassifierCard(
            name=name,
            parameters=sum(weight.numel() for weight in classifier.parameters()),
            context_length=model.settings.length,
            task=model.settings.task,
            classes=model.settings.classes,
        )

    def classify(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer in the order of the questions. Raises DataError naming the question that is not of the task's form, and
        EngineBusy when too many wait already."""
        with self.turns.take():
            inputs = []
            for number, question in enumerate(questions):
                try:
                    inputs.append(self._model.encode(question))
                except DataError as error:
                    raise DataError(error.problem, where=f"input.{number}", remedy=error.remedy) from error
            return self._model.predict(inputs)
