"""One stage in a folder of its own, with the runner's rules: go on where it stopped, never overwrite another result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from duihua import console
from duihua.errors import ConfigError
from duihua.files import remove_leftovers, write_json
from duihua.models.device import check_device
from duihua.report.fingerprint import FINGERPRINT_FILE, Fingerprints, marks_of, only_data_differs, stored_parts
from duihua.report.lock import only_run
from duihua.report.recipe import PlannedStage
from duihua.report.runner import terminating_as_interrupt
from duihua.report.settings_line import defaults_of, settings_line
from duihua.report.stage_state import bundle_sizes, stage_state
from duihua.stages import Stage
from duihua.stages.context import RESULT_FILE, StageContext, StageResult
from duihua.stages.data_state import FLAG, changed_sources
from duihua.stages.execution import execute


def run_single(
    stage: Stage, config: Any, context: StageContext, begins: Callable[[Mapping[str, str]], None] = lambda _: None
) -> StageResult:
    """Run `stage` in `context.directory`, go on there, or give the result that stands there already.

    begins: called with the hashes of the data when there is work to do, right before it.
    Raises ConfigError when the folder holds something that was made with other settings, DataError when it is of other data
    and the context does not accept that.
    """
    check_device(context.device)
    folder = context.directory
    with only_run(folder), terminating_as_interrupt():
        prints = Fingerprints(context.data_directory, context.seed, context.threads or 0)
        planned = PlannedStage(stage.name, stage, config, dict(context.inputs))
        made_from = marks_of([planned], {planned.name: folder}, prints, context.accept_changed_data)
        fingerprint, parts = made_from.stages[planned.name]
        remove_leftovers(folder)  # also of a stage that is done: a kill may have met its very last write
        state, reasons = stage_state(folder, fingerprint, parts)
        if state == "finished":
            console.say(f"{stage.name}: done already with these settings, in {folder}")
            return StageResult.load(folder)
        before = stored_parts(folder) or {}
        if state == "stale" and only_data_differs(before, parts):
            raise ConfigError(
                f"holds what was made of other data: {', '.join(changed_sources(before['data'], parts['data']))} changed",
                where=str(folder),
                remedy=f"Put the old content back, train anew with another --output, or add {FLAG} to keep what is there",
            )
        if state == "stale":
            raise ConfigError(
                f"holds something else ({'; '.join(reasons[:3])})",
                where=str(folder),
                remedy="Choose another folder with --output, or the settings that it was made with",
            )
        if state == "unfinished":
            console.say(f"{stage.name}: going on ({'; '.join(reasons)})")
            (folder / RESULT_FILE).unlink(missing_ok=True)
        else:
            write_json(folder / FINGERPRINT_FILE, {"fingerprint": fingerprint, "parts": parts})
            console.say(f"{stage.name}: {settings_line(parts['config'], defaults_of(config))}")
        data = made_from.data[planned.name]
        begins(data)
        result = execute(stage, config, dataclasses.replace(context, data=data))
        result.save(folder)
        files = bundle_sizes(result)
        write_json(folder / FINGERPRINT_FILE, {"fingerprint": fingerprint, "parts": parts, "files": files})
    return result
