"""Running one stage so that the same settings give the same bytes: seeds, threads, device, and a clean folder.

Why before every stage and not once: a stage that follows another in one process must start from the same random state
and the same number of threads as one that is started by itself after a crash, or a resumed run would end elsewhere.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from duihua.config import to_mapping
from duihua.files import remove_leftovers, write_json
from duihua.interrupts import signals_wait
from duihua.models.device import check_device
from duihua.stages import Stage
from duihua.stages.context import StageContext, StageResult
from duihua.stages.data_state import DataState
from duihua.training.allocator import keep_freed_memory

CONFIG_FILE = "settings.json"


def execute(stage: Stage, config: Any, context: StageContext) -> StageResult:
    """Run `stage` in `context.directory`, resuming what is there. Raises what the stage raises, and DataError where its data
    is not what it was trained on so far."""
    context.directory.mkdir(parents=True, exist_ok=True)
    remove_leftovers(context.directory)
    write_json(context.directory / CONFIG_FILE, to_mapping(config))
    with signals_wait():
        importlib.import_module("torch")
        if stage.module:
            importlib.import_module(stage.module)
    keep_freed_memory()
    data = DataState(config, context)
    data.before()
    with settled(context.device, context.threads, context.seed):
        result = stage.run(config, context)
    data.after()
    return result


@contextmanager
def settled(device: str, threads: int | None, seed: int) -> Iterator[None]:
    """Seed every generator; inside, torch has `threads` threads and on the CPU deterministic kernels.

    Raises ConfigError for a device that is not there.
    """
    import numpy
    import torch

    check_device(device)
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    filling = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        filling.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    if threads:
        torch.set_num_threads(threads)
    if device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        filling.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time; nothing reads it
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        filling.fill_uninitialized_memory = before[3]  # type: ignore[attr-defined]


def is_finished(directory: Path) -> bool:
    """Whether a stage that was started here has ended: its result stands, and so does its bundle."""
    from duihua.errors import DuihuaError

    try:
        result = StageResult.load(directory)
    except (DuihuaError, KeyError, TypeError):
        return False
    return result.bundle is None or result.bundle.is_dir()
