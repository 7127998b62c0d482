"""`duihua feedback show|train|versions|promote`: from what was said on the chat page to a new version of the model.

    duihua feedback show                                   what has been said, and the pairs that it makes
    duihua feedback train --bundle runs/quickstart --output runs/feedback --gate 0.5
    duihua feedback versions runs/feedback
    duihua feedback promote runs/feedback v1
    duihua serve runs/feedback                             all versions; the promoted one is the default

STORE is the file in which `duihua serve` keeps its conversations; without it the usual place.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError

if TYPE_CHECKING:
    from duihua.models.versions import Version, Versions

SHOWN_CONVERSATIONS = 12


def main(argv: Sequence[str]) -> int:
    """Run one of the four. Returns 0; 1 where a gate kept a version from being promoted. Raises DuihuaError."""
    arguments = _parser().parse_args(list(argv))
    with console.json_output(arguments.json):
        if arguments.what == "show":
            return _show(arguments)
        if arguments.what == "train":
            return _train(arguments, ["duihua", "feedback", *argv])
        if arguments.what == "versions":
            return _versions(arguments)
        return _promote(arguments)


def store_file(given: str) -> Path:
    """The file that is meant: the one that was named, else the one in which `duihua serve` keeps its history."""
    from duihua.serving.config import ServingConfig

    if "://" in given and not given.startswith("sqlite:///"):
        raise ConfigError(
            "votes are read out of a SQLite file",
            where=given.partition("://")[0],
            remedy="Name the file of `duihua serve`",
        )
    return Path(ServingConfig(store=given.removeprefix("sqlite:///")).store_place)


def _show(arguments: argparse.Namespace) -> int:
    from duihua.data.feedback import read_feedback, short_of

    feedback = read_feedback(store_file(arguments.store))
    found, short = feedback.counts(), short_of(feedback)
    if arguments.json:
        console.emit_json({**found, "short_of": short})
        return 0
    votes, parts = found["votes"], found["pairs_by_part"]
    console.say(
        f"{found['store']}: {votes['up']} votes up, {votes['down']} down, {found['corrections']} corrections; "
        f"{found['pairs']} pairs"
    )
    rows = found["conversations"]
    console.table(
        "",
        ["conversation", "up", "down", "corrections", "pairs"],
        [[one["title"] or one["id"], one["up"], one["down"], one["corrections"], one["pairs"]] for one in rows][
            :SHOWN_CONVERSATIONS
        ],
    )
    if len(rows) > SHOWN_CONVERSATIONS:
        console.say(f"and {len(rows) - SHOWN_CONVERSATIONS} more conversations (--json lists all)")
    languages = ", ".join(f"{name} {count}" for name, count in sorted(found["pairs_by_language"].items()))
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(found["pairs_by_kind"].items()))
    console.say(f"Pairs by language: {languages}; by kind: {kinds}")
    console.say(
        f"A training would learn from {parts['learn']}, judge by {parts['judge']}, and hold out {parts['heldout']}; "
        f"{found['prompts_held_out']} held-out prompts to compare on"
    )
    if short:
        console.say(f"Not enough for a training yet: {'; '.join(short)}")
    for reason, row in found["left_out"]["reasons"].items():
        console.say(f"Left out: {row['count']} x {reason}, first at {row['first']}")
    return 0


def _train(arguments: argparse.Namespace, command: list[str]) -> int:
    from duihua.data.home import data_directory
    from duihua.report.feedback import train
    from duihua.report.feedback_request import Request

    if not arguments.output:
        raise ConfigError("no folder to write to", where="--output", remedy="Add --output DIR, such as runs/feedback")
    bundle, run = model_and_run(Path(arguments.bundle)) if arguments.bundle else (None, None)
    request = Request(
        store=store_file(arguments.store),
        output=Path(arguments.output),
        data_directory=data_directory(arguments.data),
        bundle=bundle,
        run=run,
        judge=Path(arguments.judge) if arguments.judge else None,
        method=arguments.method,
        prompts=arguments.prompts,
        replies=arguments.replies,
        gate=arguments.gate,
        settings=tuple(arguments.set),
        seed=arguments.seed,
        threads=arguments.threads or 0,
        device=arguments.device,
        command=tuple(command),
    )
    try:
        outcome = train(request)
    except KeyboardInterrupt:
        console.say(f"Stopped; nothing is lost. Go on with the same command: {shlex.join(command)}")
        raise
    if arguments.json:
        console.emit_json({"new": outcome.new, "version": outcome.version.name, **_mapping(outcome.versions)})
    return 0


def model_and_run(path: Path) -> tuple[Path, Path | None]:
    """The bundle that is meant, and the run where a run's folder was named: its last chat model is what people talk to."""
    from duihua.report.run_log import RUN_FILE
    from duihua.serving.models import find_sources

    bundle = find_sources([path])[-1].directory
    return bundle, path if (path / RUN_FILE).is_file() else None


def _versions(arguments: argparse.Namespace) -> int:
    from duihua.models.versions import read_versions

    versions = read_versions(Path(arguments.directory))
    if arguments.json:
        console.emit_json(_mapping(versions))
        return 0
    console.table(
        str(versions.directory),
        ["version", "", "made by", "learnt from", "wins", "low", "high", "against", "model"],
        [_row(versions, version) for version in versions.versions],
    )
    return 0


def _row(versions: Versions, version: Version) -> list[Any]:
    facts = version.facts
    compared = facts.get("comparison") or {}
    rate = compared.get("win_rate") or {}
    state = "promoted" if version.name == versions.promoted else "" if version.bundle is not None else "unfinished"
    pairs = (facts.get("pairs") or {}).get("learn")
    return [
        version.name, state, facts.get("method", ""), None if pairs is None else f"{pairs} pairs", rate.get("value"),
        rate.get("low"), rate.get("high"), compared.get("against", ""), str(version.bundle or ""),
    ]  # fmt: skip


def _mapping(versions: Versions) -> dict[str, Any]:
    return {
        "directory": str(versions.directory),
        "promoted": versions.promoted,
        "versions": [
            {"name": one.name, "bundle": None if one.bundle is None else str(one.bundle), **one.facts}
            for one in versions.versions
        ],
        "promotions": list(versions.promotions),
    }


def _promote(arguments: argparse.Namespace) -> int:
    from duihua.report.promotion import promote

    versions, refused = promote(Path(arguments.directory), arguments.version, arguments.gate)
    if refused:
        console.warn(f"{versions.promoted} stays the promoted version: {refused}")
    elif versions.promotions:
        console.say("`duihua serve` and `duihua chat` take it when they are started the next time.")
    if arguments.json:
        console.emit_json({"refused": refused, **_mapping(versions)})
    return 1 if refused else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua feedback",
        description="Turn votes and corrections of the chat page into pairs, train a new version of the model on them, compare "
        "it blind with the version that is promoted, and promote it when you say so or a gate holds.",
        epilog="Each of the four takes --help and --json. Start here: duihua feedback show",
        allow_abbrev=False,
    )
    what = parser.add_subparsers(dest="what", metavar="show|train|versions|promote", required=True)
    show = what.add_parser("show", help="what has been said, and the pairs that it makes", allow_abbrev=False)
    _add_store(show)
    _add_json(show)
    _add_train(what.add_parser("train", help="make a new version and compare it", allow_abbrev=False))
    versions = what.add_parser("versions", help="list the versions of a folder", allow_abbrev=False)
    versions.add_argument("directory", metavar="DIR", help="folder that `train` has written")
    _add_json(versions)
    promote = what.add_parser("promote", help="choose the version that the folder stands for", allow_abbrev=False)
    promote.add_argument("directory", metavar="DIR", help="folder that `train` has written")
    promote.add_argument("version", metavar="VERSION", help="such as v1; v0 is the model that was there before")
    promote.add_argument(
        "--gate", metavar="SHARE", type=float, default=None, help="only where the win rate's lower end is above this"
    )
    _add_json(promote)
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "store",
        metavar="STORE",
        nargs="?",
        default="",
        help="file of conversations (default: where `duihua serve` keeps it)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument(
        "--bundle",
        metavar="DIR",
        default="",
        help="the chat model that was voted on, or the folder of a run: its last chat model, with the run's settings and data "
        "for reward model and PPO. Needed for the first version of a folder",
    )
    parser.add_argument("--output", metavar="DIR", default="", help="folder of the versions; the same folder goes on")
    parser.add_argument(
        "--method", choices=("dpo", "ppo"), default="dpo", help="dpo (default), or ppo with a reward model"
    )
    parser.add_argument(
        "--gate",
        metavar="SHARE",
        type=float,
        default=None,
        help="promote the new version where the lower end of its win rate's 95 %% interval is above this, such as 0.5; "
        "without it nothing is promoted until you say so",
    )
    parser.add_argument(
        "--judge",
        metavar="DIR",
        default="",
        help="a reward model that judges (default: one is trained on pairs of its own)",
    )
    parser.add_argument("--prompts", metavar="N", type=int, default=96, help="most held-out prompts asked (default 96)")
    parser.add_argument("--replies", metavar="N", type=int, default=2, help="replies of each side to each (default 2)")
    parser.add_argument(
        "--set",
        metavar="STAGE.FIELD=VALUE",
        action="append",
        default=[],
        help="a setting of judge, reward, ppo or dpo, as dpo.beta=0.2; may be given several times",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of every random choice (default 0)")
    parser.add_argument(
        "--threads", metavar="N", type=int, default=None, help="CPU threads (default: one for each core)"
    )
    parser.add_argument(
        "--data", metavar="DIR", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    _add_json(parser)
