"""`duihua doctor reward DIR` and `duihua doctor ppo RUN`: what is wrong with a reward model or a run, and what to change.

Exit codes: 0 fit, 1 not fit. Thresholds are flags: `--least-accuracy 0.65`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from duihua import console
from duihua.cli.arguments import Parser
from duihua.config import build, load_yaml, override, parse
from duihua.stages.configs.doctors import PPODoctorConfig, RewardDoctorConfig
from duihua.stages.ppo_log import METRICS

if TYPE_CHECKING:
    from duihua.stages.diagnosis import Diagnosis

Config = TypeVar("Config", PPODoctorConfig, RewardDoctorConfig)

REWARD_HELP = """\
Is this reward model fit to start PPO, and if not, why not? Looks at held-out data: accuracy by source, calibration,
correlation with length, probes with spoilt replies, normalisation on fresh replies of the policy.

  DIR            folder of the reward model
  --policy DIR   folder of the model that PPO would start from (its SFT bundle); without it nothing is sampled
  --config FILE  settings in YAML; --set FIELD=VALUE one setting over the file's
  --data DIR     data directory (default $DUIHUA_HOME or ~/.cache/duihua)
  --device NAME  cpu, cuda or cuda:N (default cpu)
  --json         one JSON object: fit, why_not, findings, measured

Exit code 0: fit; 1: not fit. Settings:"""

PPO_HELP = """\
Is this PPO run healthy? Reads metrics.jsonl of the folder that `duihua ppo` wrote: ratio at the start, KL under 0 or too
large, a score that follows the length, entropy, ends of replies, repetition, clipping, the critic, the gold score.

  RUN            folder of the stage, or of a run that has it
  --config FILE  settings in YAML; --set FIELD=VALUE one setting over the file's
  --json         one JSON object: fit, why_not, findings, measured

Exit code 0: healthy; 1: not. Settings:"""


def reward(argv: Sequence[str]) -> int:
    """`duihua doctor reward`; returns 0 where the model is fit to start PPO, else 1. Raises DuihuaError."""
    parser = _parser("duihua doctor reward", "DIR")
    parser.add_argument("--policy", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--device", default="cpu")
    given = _read(parser, argv, RewardDoctorConfig, REWARD_HELP)
    if given is None:
        return 0
    arguments, config = given
    with console.json_output(arguments.json):
        from duihua.data.home import data_directory
        from duihua.stages.reward_doctor import diagnose

        found = diagnose(
            Path(arguments.folder),
            config,
            data_directory(arguments.data),
            Path(arguments.policy) if arguments.policy else None,
            device=arguments.device,
        )
        if not arguments.json:
            _show_pairs(found.measured)
        return _show(found, arguments.folder, "Fit to start PPO.", "Not fit to start PPO", arguments.json)


def ppo(argv: Sequence[str]) -> int:
    """`duihua doctor ppo`; returns 0 where the run is healthy, else 1. Raises DuihuaError."""
    given = _read(_parser("duihua doctor ppo", "RUN"), argv, PPODoctorConfig, PPO_HELP)
    if given is None:
        return 0
    arguments, config = given
    with console.json_output(arguments.json):
        from duihua.stages.ppo_doctor import TOO_FEW, examine
        from duihua.stages.ppo_log import read_metrics

        stage = stage_of(Path(arguments.folder))
        found = examine(read_metrics(stage), config)
        whole = all(finding.check != TOO_FEW for finding in found.findings)
        good = "A healthy run." if whole else "Nothing wrong so far, in too few rollouts to call the run healthy."
        return _show(found, str(stage), good, "Not a healthy run", arguments.json)


def stage_of(run: Path) -> Path:
    """The folder of the stage that learnt from rollouts: `run` itself, or in a run's folder `ppo`, else `grpo`."""
    found = [run / name for name in ("ppo", "grpo") if (run / name / METRICS).is_file()]
    return found[0] if found and not (run / METRICS).exists() else run


def _parser(prog: str, what: str) -> Parser:
    parser = Parser(prog=prog, add_help=False, allow_abbrev=False)
    parser.add_argument("folder", metavar=what)
    parser.add_argument("--config", default="")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    return parser


def _read(
    parser: Parser, argv: Sequence[str], cls: type[Config], text: str
) -> tuple[argparse.Namespace, Config] | None:
    """The words and the settings; None where help was asked for and shown."""
    if "--help" in argv or "-h" in argv:
        from duihua.cli.stage import shortened

        parse(cls, ["--help"], default=shortened(cls()), prog=parser.prog, description=text)
        return None
    arguments, flags = parser.parse_known_args(list(argv))
    mapping = load_yaml(arguments.config) if arguments.config else {}
    config = build(cls, override(mapping, arguments.set), "doctor")
    return arguments, parse(cls, flags, default=config, prog=parser.prog) if flags else config


def _show_pairs(measured: dict[str, Any]) -> None:
    """The tables behind the verdict on a reward model."""
    rows = [[r["source"], r["kind"], r["value"], r["low"], r["high"], r["n"]] for r in measured["sources"]]
    console.table("held-out accuracy", ["source", "kind", "accuracy", "low", "high", "pairs"], rows)
    curve = measured["calibration_curve"]
    console.table(
        "calibration",
        ["confidence from", "to", "mean confidence", "right", "pairs"],
        [[row["low"], row["high"], row["confidence"], row["right"], row["n"]] for row in curve],
    )
    most = max((row["n"] for row in measured["margins"]), default=0) or 1
    console.table(
        "margins (better less worse reply, raw reward)",
        ["from", "to", "pairs", ""],
        [[row["low"], row["high"], row["n"], "#" * round(24 * row["n"] / most)] for row in measured["margins"]],
    )


def _show(found: Diagnosis, where: str, good: str, bad: str, as_json: bool) -> int:
    if as_json:
        console.emit_json({"folder": where, **found.to_mapping()})
        return 0 if found.fit else 1
    console.table("", ["check", "state", "found"], [[f.check, f.state, f.found] for f in found.findings])
    advice: dict[str, list[str]] = {}  # what is said of several findings is said once
    for finding in found.findings:
        said = ". ".join(part for part in (finding.meaning, finding.remedy) if part)
        if finding.state != "ok" and said:
            advice.setdefault(said, []).append(finding.check)
    for said, checks in advice.items():
        console.say(f"\n{', '.join(checks)}: {said}.")
    names = ", ".join(finding.check for finding in found.problems)
    console.say(f"\n{good}" if found.fit else f"\n{bad}: {names}.")
    return 0 if found.fit else 1
