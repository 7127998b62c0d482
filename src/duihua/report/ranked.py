"""One stage on several ranks: the first one keeps the folder, the others help it train.

Which of them may write is decided here and once: the first rank runs the stage as if it were alone (lock, fingerprint,
checkpoints, bundle), the others run the same code in a temporary folder and say nothing. What they would write there is of
no use to anybody; what they compute reaches the first through the Trainer.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.errors import DuihuaError
from duihua.interrupts import signals_wait
from duihua.models.device import check_device
from duihua.report.runner import terminating_as_interrupt
from duihua.report.single import run_single
from duihua.stages import Stage
from duihua.stages.context import StageContext, StageResult
from duihua.stages.execution import execute
from duihua.training.launch import launched_ranks

if TYPE_CHECKING:
    from duihua.training.ranks import Ranks


def run_ranked(stage: Stage, config: Any, context: StageContext) -> StageResult | None:
    """`run_single` on all ranks that torchrun has started, with one device each; None on every rank but the first."""
    if launched_ranks() == 1:
        return run_single(stage, config, context)
    with signals_wait():
        from duihua.training.ranks import device_of_rank, joined
    own = dataclasses.replace(context, device=device_of_rank(context.device))
    check_device(own.device)
    with terminating_as_interrupt(), joined(own.device) as ranks:
        if ranks.first:
            return _lead(stage, config, own, ranks)
        _follow(stage, config, own, ranks)
        return None


def _lead(stage: Stage, config: Any, context: StageContext, ranks: Ranks) -> StageResult:
    told = False

    def tell(data: Mapping[str, str]) -> None:
        nonlocal told
        told = True
        ranks.share(dict(data))
        console.say(f"{stage.name}: {ranks.count} ranks")

    try:
        return run_single(stage, config, context, tell)
    finally:
        if not told:  # it was done already, or cannot be done: the others have nothing to do
            ranks.share(None)


def _follow(stage: Stage, config: Any, context: StageContext, ranks: Ranks) -> None:
    from duihua.training.ranks import DoneHere

    data = ranks.share()
    if data is None:
        return
    with tempfile.TemporaryDirectory(prefix="duihua-rank-") as folder, console.silence():
        try:
            execute(stage, config, dataclasses.replace(context, directory=Path(folder), data=data))
        except DoneHere:
            pass
        except DuihuaError as error:
            error.where = f"rank {ranks.number}, {error.where}".removesuffix(", ")
            raise
