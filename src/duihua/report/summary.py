"""summary.json: the few numbers of a run that a script reads.

Why a file of its own beside report.html: checks, benchmarks and people's own tables must not parse a page. Its keys are
a promise: they are named here once, each with the stage and the place it is taken from. A stage that the run does not
have leaves its keys out; a number that is not finite becomes null, because NaN is no JSON.
"""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

from duihua.files import write_json
from duihua.report.run_record import RunRecord, dig, read_run

# key in summary.json, the stage whose result.json holds it, the place in there
PLACES: tuple[tuple[str, str, str], ...] = (
    ("tokenizer.characters_per_token.en", "tokenizer", "characters_per_token.en"),
    ("tokenizer.characters_per_token.zh", "tokenizer", "characters_per_token.zh"),
    ("pretrain.bits_per_byte.all", "pretrain", "bits_per_byte.all"),
    ("pretrain.bits_per_byte.en", "pretrain", "bits_per_byte.en"),
    ("pretrain.bits_per_byte.zh", "pretrain", "bits_per_byte.zh"),
    ("pretrain.tokens_per_second", "pretrain", "tokens_per_second"),
    ("reward.accuracy.value", "reward", "accuracy.value"),
    ("reward.accuracy.low", "reward", "accuracy.low"),
    ("reward.accuracy.high", "reward", "accuracy.high"),
    ("classify.accuracy.value", "classify", "accuracy.value"),
    ("classify.accuracy.low", "classify", "accuracy.low"),
    ("classify.accuracy.high", "classify", "accuracy.high"),
    ("classify.majority", "classify", "baseline.accuracy.value"),
    ("ppo.reward_gain.value", "ppo", "reward_gain.value"),
    ("ppo.reward_gain.standard_error", "ppo", "reward_gain.standard_error"),
    ("ppo.kl_nats", "ppo", "kl_nats"),
    ("repetition_rate.base", "evaluate", "repetition_rate.base"),
    ("repetition_rate.sft", "evaluate", "repetition_rate.sft"),
    ("repetition_rate.ppo", "evaluate", "repetition_rate.ppo"),
    ("repetition_change.value", "evaluate", "repetition_change.value"),
    ("repetition_change.standard_error", "evaluate", "repetition_change.standard_error"),
    ("bleu.value", "evaluate", "bleu.value"),
    ("bleu.signature", "evaluate", "bleu.signature"),
    *(
        (f"wins.{model}.{part}", "compare", f"against_reference.{model}.win_rate.{part}")
        for model in ("best_of_n", "rejection_sampling", "dpo", "grpo", "ppo")
        for part in ("value", "low", "high")
    ),
)


def summarise(record: RunRecord) -> dict[str, Any]:
    """The summary of a run that has been read: nested keys as in PLACES, then versions and the command."""
    summary: dict[str, Any] = {
        "minutes": _json_value(record.run.get("minutes")),
        "peak_memory_gib": _json_value(record.run.get("peak_memory_gib")),
    }
    for key, stage, place in PLACES:
        value = dig(record.result(stage), place)
        if value is None:
            continue
        inner = summary
        *parents, last = key.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = _json_value(value)
    summary["versions"] = dict(record.run.get("versions") or {})
    summary["command"] = command_line(record)
    return summary


def write_summary(run_directory: Path) -> dict[str, Any]:
    """Write `run_directory`/summary.json and return what it holds. Raises DuihuaError where run.json is not one."""
    summary = summarise(read_run(run_directory))
    write_json(run_directory / "summary.json", summary)
    return summary


def command_line(record: RunRecord) -> str:
    """The command that made the run, as one would type it."""
    command = record.run.get("command") or ""
    return shlex.join(str(word) for word in command) if isinstance(command, list | tuple) else str(command)


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
