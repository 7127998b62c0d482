"""Where figures can go beside metrics.jsonl: TensorBoard, Weights & Biases, trackio.

Why they are fed from the file and not from the loop: metrics.jsonl is always written, whatever watches it; so a service that is
down, slow or not installed can neither stop a training nor change it, figures of a run that is over can still be sent, and a
setting of monitoring is no setting of what is learnt. `duihua watch --to` reads the file and writes here.

None of the three is installed with duihua; what is missing is said with the command that installs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from duihua.errors import ConfigError

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""Name of a sink -> what pip installs for it."""


class Sink(Protocol):
    """Takes the figures of one training."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of one step; steps come in rising order."""

    def close(self) -> None:
        """Everything has been written."""


def open_sink(kind: str, name: str, folder: Path) -> Sink:
    """A sink of that kind for the training called `name`, whose files (where it has any) lie in `folder`.

    Raises ConfigError for an unknown kind, and for one whose package is not installed.
    """
    if kind not in PACKAGES:
        raise ConfigError(f"there is no {kind!r}", where="--to", remedy=f"Use {', '.join(PACKAGES)}")
    return TensorBoardSink(folder) if kind == "tensorboard" else ProjectSink(_module(kind, kind), name)


class TensorBoardSink:
    """Event files that `tensorboard --logdir` shows, by torch's own writer."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = _module("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class ProjectSink:
    """wandb, and trackio, which has the same functions. Both know a present run, which a second `init` would end; so figures
    go to the run that `init` gives, and wandb is told to leave others alone."""

    def __init__(self, module: ModuleType, name: str, project: str = "duihua") -> None:
        beside = {"reinit": "create_new"} if module.__name__ == "wandb" else {}
        self._run: Any = module.init(project=project, name=name, **beside)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


def _module(module: str, kind: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{PACKAGES[kind]} is not installed", where=f"--to {kind}", remedy=f"pip install {PACKAGES[kind]}"
        ) from error
