"""A classifier behind the API: one request at a time, and only so many that wait.

Why no engine and no queue of slots as for text: an answer is one forward pass over all that a request holds, over in
milliseconds, so that a lock is enough. The limit on those who wait keeps a flood from filling the server's threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from duihua.engine.service import EngineBusy
from duihua.errors import DataError
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
    """A classifier bundle and its card. May be called from any thread. waiting: requests now, the one answered included."""

    def __init__(self, name: str, model: ClassifierModel, most_waiting: int) -> None:
        self._model, self._most = model, most_waiting
        self._work, self._count, self.waiting = threading.Lock(), threading.Lock(), 0
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
        with self._count:
            if self.waiting > self._most:
                raise EngineBusy(f"{self._most} requests wait for {self.card.name} already")
            self.waiting += 1
        try:
            with self._work:
                inputs = []
                for number, question in enumerate(questions):
                    try:
                        inputs.append(self._model.encode(question))
                    except DataError as error:
                        raise DataError(error.problem, where=f"input.{number}", remedy=error.remedy) from error
                return self._model.predict(inputs)
        finally:
            with self._count:
                self.waiting -= 1
