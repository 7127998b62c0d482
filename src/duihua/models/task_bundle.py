"""Classifier bundles: a policy bundle with two more files.

    config.json  model.safetensors  tokenizer.json  ...     the trunk, a language model like any other
    task_head.safetensors                                   W_y and the embeddings of the three task tokens
    task.json                                               which task, which classes, how long a sequence may be

Why two files beside a bundle and not a Hugging Face class: no such class has the sum over two orders or task tokens that
no text can write, and a directory that claimed one would be read wrongly without a word. The trunk stays what other
programs can read. task.json is written last, so that half a classifier is never read as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from duihua.errors import BundleError
from duihua.files import write_atomic, write_json
from duihua.models.bundle import ModelCard, load_bundle, save_bundle
from duihua.models.classifier import POOLINGS, Classifier, Pooling
from duihua.models.weights import fitting_tensors, read_object
from duihua.text.task_inputs import TASKS, Task, TaskInputs
from duihua.text.tokenizer import Tokenizer

TASK_FILE, HEAD_FILE = "task.json", "task_head.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class TaskSettings:
    """What a classifier was trained for.

    classes: names in the order of the logits; empty for multiple choice, whose options differ from example to example.
    length: most tokens of a sequence. dropout: in training, on the vector that W_y reads. pooling: which vector that is.
    """

    task: Task
    classes: tuple[str, ...]
    length: int
    dropout: float = 0.1
    pooling: Pooling = "extract"


@dataclass(frozen=True)
class TaskBundle:
    """A loaded classifier. terms: of the data that it was made from."""

    classifier: Classifier
    tokenizer: Tokenizer
    inputs: TaskInputs
    settings: TaskSettings
    directory: Path
    terms: list[dict[str, str]]


def is_task_bundle(directory: str | Path) -> bool:
    """Whether the directory holds a classifier."""
    return (Path(directory) / TASK_FILE).is_file() and (Path(directory) / "config.json").is_file()


def save_task_bundle(
    directory: Path, classifier: Classifier, tokenizer: Tokenizer, card: ModelCard, settings: TaskSettings
) -> None:
    """Write the trunk as a policy bundle, then the head, then task.json. Raises BundleError where it cannot."""
    directory = Path(directory)
    (directory / TASK_FILE).unlink(missing_ok=True)
    save_bundle(directory, classifier.decoder, tokenizer, card)
    write_atomic(directory / HEAD_FILE, save({name: w.contiguous() for name, w in _head(classifier).items()}))
    write_json(
        directory / TASK_FILE,
        {
            "format": FORMAT,
            "task": settings.task,
            "classes": list(settings.classes),
            "length": settings.length,
            "dropout": settings.dropout,
            "pooling": settings.pooling,
        },
    )


def load_task_bundle(directory: str | Path, device: str = "cpu") -> TaskBundle:
    """Read what `save_task_bundle` wrote. Raises BundleError for a bundle that has no classifier or a broken one."""
    directory = Path(directory)
    if not directory.is_dir():
        raise BundleError("no such directory", where=str(directory), remedy="Name the folder of a classifier")
    if not (directory / TASK_FILE).is_file():
        raise BundleError(
            f"holds no classifier (there is no {TASK_FILE})",
            where=str(directory),
            remedy=f"Train one from it: duihua classify --input policy={directory} --output DIR",
        )
    settings = _read_settings(directory / TASK_FILE)
    bundle = load_bundle(directory, device)
    classifier = Classifier(bundle.policy, settings.task, len(settings.classes), settings.dropout, settings.pooling)
    head = fitting_tensors(
        directory / HEAD_FILE, _head(classifier), "config.json and task.json", "Train the classifier again"
    )
    classifier.load_state_dict(head, strict=False)
    inputs = TaskInputs(bundle.tokenizer, bundle.config.vocabulary_size, settings.task, settings.length)
    return TaskBundle(
        classifier.to(device).eval(), bundle.tokenizer, inputs, settings, directory, [dict(t) for t in bundle.terms]
    )


def _head(classifier: Classifier) -> dict[str, Tensor]:
    """The classifier's own tensors: all but the decoder's."""
    return {
        name: weight.detach().cpu() for name, weight in classifier.named_parameters() if not name.startswith("decoder.")
    }


def _read_settings(path: Path) -> TaskSettings:
    stored = read_object(path)
    if stored.get("format") != FORMAT:
        raise BundleError(
            f"format {stored.get('format')!r}, and this duihua reads {FORMAT}",
            where=str(path),
            remedy="Use the duihua that wrote it, or train the classifier again",
        )
    task, classes, length, dropout = (stored.get(key) for key in ("task", "classes", "length", "dropout"))
    pooling = stored.get("pooling", "extract")  # the first classifiers knew no other
    right = (
        task in TASKS
        and isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and (len(classes) >= 2 or task == "multiple_choice")
        and isinstance(length, int)
        and isinstance(dropout, int | float)
        and pooling in POOLINGS
    )
    if not right:
        raise BundleError("is not a description of a task", where=str(path), remedy="Train the classifier again")
    return TaskSettings(
        _as_task(task), tuple(classes or ()), int(length or 0), float(dropout or 0.0), _as_pooling(pooling)
    )


def _as_task(value: Any) -> Task:
    return next(task for task in TASKS if task == value)


def _as_pooling(value: Any) -> Pooling:
    return next(pooling for pooling in POOLINGS if pooling == value)
