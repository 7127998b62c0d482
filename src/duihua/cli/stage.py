"""`duihua pretrain|sft|reward|ppo|tokenizer|evaluate`: one stage by itself, without a recipe.

Settings come in this order, the later over the earlier: the config's defaults, `--config FILE`, `--set field=value`,
plain flags. The same folder goes on where it was stopped, and is refused when it was made with other settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.config import build, load_yaml, override, parse, to_mapping
from duihua.config.flags import optional_groups
from duihua.config.mapping import suggestion
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.stages import Stage, find_stage
from duihua.stages.configs.dial import names_in, names_of_flags, stating
from duihua.training.launch import launch_words

INPUT_FILES = ("config.json", "tokenizer.json", "words.json", "characters.json")


def main(argv: Sequence[str], prog: str = "") -> int:
    """Run the stage named by the first word of `argv`. Returns 0. Raises DuihuaError. prog: the command whose --help lists the
    flags, where that is not the stage's verb."""
    stage = find_stage(argv[0])
    words = list(argv[1:])
    parser = _parser(stage, prog)
    if "--help" in words or "-h" in words:
        shown, description = shortened(stage.config_class()()), _description(stage, parser)
        parse(stage.config_class(), ["--help"], default=shown, prog=parser.prog, description=description)
        return 0
    common, flags = parser.parse_known_args(words)
    with console.json_output(common.json):
        config = read_config(stage, common.config, common.set, flags, parser.prog)
        if not common.output:
            raise ConfigError(
                "no folder to write to", where="--output", remedy=f"Add --output DIR, such as runs/{stage.name}"
            )
        inputs = read_inputs(stage, common.input)
        outcome = _run(stage, config, inputs, common, [*launch_words(), *argv])
        if common.json and outcome is not None:
            console.emit_json(outcome)
    return 0


def _run(
    stage: Stage, config: Any, inputs: dict[str, Path], common: argparse.Namespace, command: list[str]
) -> dict[str, Any] | None:
    from duihua.data.home import data_directory
    from duihua.report.ranked import run_ranked
    from duihua.stages.context import StageContext

    context = StageContext(
        directory=Path(common.output),
        inputs=inputs,
        data_directory=data_directory(common.data),
        device=common.device,
        seed=common.seed,
        threads=common.threads,
        accept_changed_data=common.accept_changed_data,
    )
    try:
        result = run_ranked(stage, config, context)
    except KeyboardInterrupt:
        console.say(f"Stopped; nothing is lost. Go on with the same command: {shlex.join(command)}")
        raise
    if result is None:  # one of several ranks; the first one says what there is to say
        return None
    bundle = None if result.bundle is None else str(result.bundle)
    console.say(f"{stage.name}: {'its result' if bundle is None else 'the bundle'} is in {common.output}")
    return {"stage": stage.name, "bundle": bundle, "config": to_mapping(config), "metrics": result.metrics}


def read_config(stage: Stage, file: str, settings: Sequence[str], flags: Sequence[str], prog: str = "") -> Any:
    """The stage's config out of a YAML file, `--set` and flags. Raises ConfigError naming the place."""
    mapping = load_yaml(file) if file else {}
    if set(mapping) == {stage.name} and isinstance(mapping[stage.name], dict):  # a file that names its stage
        mapping = mapping[stage.name]
    cls = stage.config_class()
    mapping = override(mapping, list(settings))
    config = build(cls, mapping, stage.name)
    if flags:
        config = parse(cls, flags, default=config, prog=prog or f"duihua {stage.name}")
        _say_other_sources(config, mapping, flags, stage.name)
    return stating(config, [*names_in(mapping), *names_of_flags(flags)], stage.name)


def _say_other_sources(config: Any, mapping: Mapping[str, Any], flags: Sequence[str], stage: str) -> None:
    """A flag such as --sources.0.path puts one's own data in one place of the default list; say what else stands in it."""
    for name in (field.name for field in dataclasses.fields(config) if field.name not in mapping):
        sources = getattr(config, name)
        if not isinstance(sources, tuple) or len(sources) < 2 or not isinstance(sources[0], SourceConfig):
            continue
        places = "|".join(f"--{name.replace('_', '-')}[.]{at}[.](name|path|hub)(=.*)?" for at in range(len(sources)))
        own = {int(flag.split(".")[1]) for flag in flags if re.fullmatch(places, flag)}
        others = [source.name or source.path or source.hub for at, source in enumerate(sources) if at not in own]
        if own and others:
            console.warn(
                f"{stage}: beside yours the default's other {name} stay: {', '.join(others)}. For yours alone write "
                f"--set '{name}=[{{path: FILE, kind: KIND}}]'"
            )


def read_inputs(stage: Stage, given: Sequence[str]) -> dict[str, Path]:
    """`--input role=DIR` -> role to directory; checked before torch is imported. Raises ConfigError."""
    inputs: dict[str, Path] = {}
    for text in given:
        role, equals, folder = text.partition("=")
        if not equals and len(stage.inputs) == 1:
            role, folder = next(iter(stage.inputs)), text
        elif not equals or not folder:
            raise ConfigError("is not of the form role=DIR", where=f"--input {text}", remedy=_roles(stage))
        if role not in stage.inputs:
            remedy = suggestion(role, list(stage.inputs)) if stage.inputs else f"{stage.name} takes no input"
            raise ConfigError(f"{stage.name} takes no {role!r}", where=f"--input {text}", remedy=remedy)
        path = Path(folder)
        if not path.is_dir():
            raise ConfigError("no such folder", where=f"--input {text}", remedy="Check the path of the bundle")
        if not any((path / name).is_file() for name in INPUT_FILES):
            raise ConfigError(
                "is not a bundle: it has neither config.json nor tokenizer.json",
                where=f"--input {text}",
                remedy="Name the folder that a stage has written",
            )
        inputs[role] = path
    missing = [role for role, needed in stage.inputs.items() if needed.required and role not in inputs]
    if missing or (stage.inputs and not inputs and not stage.alone):
        role = missing[0] if missing else "bundle"
        raise ConfigError(f"{stage.name} needs a {role} to start from", where="--input", remedy=_roles(stage))
    return inputs


def shortened(config: Any) -> Any:
    """The config with one item in each list of dataclasses: help explains the first source and not all six. Groups that are
    off by default are shown as if they were on."""
    cut = {
        field.name: value[:1]
        for field in dataclasses.fields(config)
        if isinstance(value := getattr(config, field.name), tuple) and value and dataclasses.is_dataclass(value[0])
    }
    absent = {name: group() for name, group in optional_groups(type(config)).items() if getattr(config, name) is None}
    return dataclasses.replace(config, **cut, **absent)


def _roles(stage: Stage) -> str:
    return "Write " + " ".join(
        f"--input {role}=DIR" if needed.required else f"[--input {role}=DIR]" for role, needed in stage.inputs.items()
    )


def _parser(stage: Stage, prog: str) -> argparse.ArgumentParser:
    parser = Parser(prog=prog or f"duihua {stage.name}", add_help=False, allow_abbrev=False)
    parser.add_argument("--output", metavar="DIR", default="", help="folder for the bundle; the same folder goes on")
    parser.add_argument(
        "--input",
        metavar="ROLE=DIR",
        action="append",
        default=[],
        help=f"a bundle to start from. {_roles(stage)}" if stage.inputs else "(this stage takes none)",
    )
    parser.add_argument("--config", metavar="FILE", default="", help="settings in YAML")
    parser.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], help="one setting over the file's")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--threads", metavar="N", type=int, default=None, help="CPU threads (default: torch's choice)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of every random choice (default 0)")
    parser.add_argument(
        "--data", metavar="DIR", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    parser.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="go on from a checkpoint though a file of data has changed under it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser


def _description(stage: Stage, parser: argparse.ArgumentParser) -> str:
    """The text above tyro's list of settings: what the stage does and the options that are no settings."""
    helps = {
        " ".join([*action.option_strings, *([str(action.metavar)] if action.metavar else [])]): action.help
        for action in parser._actions
    }
    width = max(map(len, helps))
    options = [f"  {name.ljust(width)}  {text}" for name, text in helps.items()]
    doc = (stage.config_class().__doc__ or "").strip().splitlines()[0]
    return "\n".join(
        [
            f"{stage.help[:1].upper()}{stage.help[1:]}. {doc}",
            "",
            *options,
            "",
            "Settings, as flags, --set or YAML (sources.1, sources.2 and so on like sources.0):",
        ]
    )
