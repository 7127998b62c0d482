"""Which of the given folders is what: a language model, a translator, a recurrent model, a run with its curves.

Why the kind is read off the folder and not asked for: a person has a folder and wants to see what is in it. The folder of a run
gives all its loss curves and its most trained chat model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duihua.errors import BundleError, DuihuaError
from duihua.files import read_json
from duihua.report.inside.style import Language
from duihua.report.inside.subject import Subject, short_names

MODELS = ("ppo", "sft", "pretrain")
"""Folders of a run with chat models, the most trained first."""
STAGES = ("pretrain", "sft", "reward", "ppo")
"""The order of training, which is that of the curves."""
KINDS = {
    "duihua-transformer": "translator",
    "duihua-recurrent-translator": "translator",
    "duihua-recurrent": "recurrent",
}


def subject_of(
    folders: Sequence[Path],
    measurements: Sequence[Path] = (),
    *,
    text: str | None = None,
    target: str | None = None,
    language: Language = "en",
) -> Subject:
    """A subject out of folders of any kind; of two of a kind the first counts. Raises BundleError for a folder that is nothing
    of this."""
    found: dict[str, Path] = {}
    metrics: list[Path] = []
    results: list[Path] = []

    def take(folder: Path) -> bool:
        kind = kind_of(folder)
        if kind:
            found.setdefault(kind, folder)
        if (folder / "metrics.jsonl").is_file():
            metrics.append(folder / "metrics.jsonl")
        if (folder / "result.json").is_file():
            results.append(folder / "result.json")
        return bool(kind) or (folder / "metrics.jsonl").is_file() or (folder / "result.json").is_file()

    for folder in folders:
        if not folder.is_dir():
            raise BundleError("no such folder", where=str(folder), remedy="Give the folder of a model or of a run")
        whole = take(folder)
        if not whole:
            inside = [child for child in sorted(folder.iterdir(), key=_order) if child.is_dir()]
            taken = [take(child) for child in inside]  # all of them, also after the first that is something
            if not any(taken):
                raise BundleError(
                    "holds neither a model nor a run",
                    where=str(folder),
                    remedy="Give the folder of a model or of a run",
                )
    metrics.sort(key=lambda file: STAGES.index(name) if (name := file.resolve().parent.name) in STAGES else len(STAGES))
    return Subject(
        model=found.get("model"),
        translator=found.get("translator"),
        recurrent=found.get("recurrent"),
        metrics=dict(zip(short_names([file.resolve() for file in metrics]), metrics, strict=True)),
        measurements=[*measurements, *results],
        text=text,
        target=target,
        language=language,
    )


def kind_of(folder: Path) -> str | None:
    """ "model", "translator" or "recurrent"; None for a folder without a model that writes text."""
    config: Any = None
    if (folder / "config.json").is_file() and not (folder / "task.json").is_file():
        try:
            config = read_json(folder / "config.json")
        except DuihuaError:
            return None
    if not isinstance(config, dict):
        return None
    if kind := KINDS.get(str(config.get("model_type"))):
        return kind
    architectures = config.get("architectures")
    scores = isinstance(architectures, list) and any(
        str(name).endswith("SequenceClassification") for name in architectures
    )
    return None if scores else "model"


def _order(folder: Path) -> tuple[int, str]:
    """The most trained model of a run first."""
    return MODELS.index(folder.name) if folder.name in MODELS else len(MODELS), folder.name
