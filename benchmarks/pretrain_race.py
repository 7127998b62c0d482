"""The pre-training race: the same text, the same seconds, 2 threads, fp32; who predicts held-out text best?

Peers run from their public snapshots with their own training scripts, in a Python environment of their own (--peer-python); it
needs torch, numpy, rustbpe, tiktoken, pyarrow, filelock, psutil, requests, jinja2 and pyyaml. Set-up and compilation count,
scoring does not; nor does what is prepared once (tokenizer, text in the form that a system reads). The steps that fit are
derived from each system's measured speed, by one rule for all (race/pace.py). One scorer for all (race/scoring.py).

    python benchmarks/pretrain_race.py --seconds 300 --seed 1 2 3 --nanochat DIR --nanogpt DIR --peer-python PATH --goal

Run again, it goes on where it stopped. Prints medians over the seeds, or one JSON object with --json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from race.cells import Cell, medians, run_cells
from race.corpus import HELD_OUT_BYTES, SHA256
from race.systems import SYSTEMS, Setup

from duihua import console
from duihua.errors import DuihuaError

GOALS = (("nanochat", 2), ("nanogpt", 4))
"""A peer, and what part of the time is enough for its result."""
COLUMNS = ("system", "bits per byte", "each seed", "seconds", "of them set-up", "steps", "tokens", "parameters")


def cells_of(given: argparse.Namespace, setup: Setup) -> list[Cell]:
    """Seed by seed, the systems taking turns; with --alternate every second seed in reverse."""
    runs = [(name, name, given.seconds) for name in given.systems]
    if given.goal:
        shares = [share for peer, share in GOALS if peer in given.systems]
        runs += [(goal_label(share), "duihua", given.seconds / share) for share in shares]
    order = []
    for number, seed in enumerate(given.seed):
        turn = runs[::-1] if given.alternate and number % 2 else runs
        order += [Cell(label, system, seconds, seed, setup) for label, system, seconds in turn]
    return order


def goal_label(share: int) -> str:
    return f"duihua in 1/{share} of the time"


def goals_of(table: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether our median in a part of the time is at most the peer's in the whole."""
    found = []
    for peer, share in GOALS:
        ours = table.get(goal_label(share))
        if ours is not None and peer in table:
            pair = {"duihua": ours["bits_per_byte"], peer: table[peer]["bits_per_byte"]}
            found.append({"peer": peer, "part_of_the_time": 1 / share, **pair, "met": pair["duihua"] <= pair[peer]})
    return found


def main() -> int:
    given = _arguments()
    from duihua.data.home import data_directory

    with console.json_output(given.json):
        setup = Setup(
            data=data_directory("" if given.data is None else str(given.data)),
            work=given.work,
            threads=given.threads,
            nanochat=given.nanochat,
            nanogpt=given.nanogpt,
            peer_python=given.peer_python,
            eager=given.eager,
            sets=tuple(given.set),
            peer_flags={"nanochat": tuple(given.nanochat_flag), "nanogpt": tuple(given.nanogpt_flag)},
        )
        try:
            rows = run_cells(cells_of(given, setup), given.output or given.work / "race.jsonl")
        except DuihuaError as error:
            print(error, file=sys.stderr)
            return 2
        labels = dict.fromkeys(row["label"] for row in rows)
        table = {label: medians([row for row in rows if row["label"] == label]) for label in labels}
        goals = goals_of(table)
        if given.json:
            text = {"sha256": SHA256, "heldout_bytes": HELD_OUT_BYTES}
            facts = {
                "seconds": given.seconds,
                "seeds": given.seed,
                "threads": given.threads,
                "text": text,
                **_machine(),
            }
            console.emit_json({**facts, "systems": table, "goals": goals, "rows": rows})
        else:
            console.table(f"{given.seconds:g} seconds, medians", COLUMNS, [_line(*each) for each in table.items()])
            for goal in goals:
                told = "met" if goal["met"] else "not met"
                pair = f"{goal['duihua']:.4f} against {goal[goal['peer']]:.4f}"
                console.say(f"{goal['peer']}'s result in {goal['part_of_the_time']:g} of the time: {told}, {pair}")
    return 0


def _line(label: str, row: dict[str, Any]) -> list[str]:
    each = ", ".join(f"{value:.3f}" for value in row["each"])
    clock = [f"{row['seconds']:.1f}", f"{row['setup_seconds']:.1f}", f"{row['steps']:g}"]
    return [label, f"{row['bits_per_byte']:.4f}", each, *clock, f"{row['tokens']:,.0f}", f"{row['parameters']:,.0f}"]


def _machine() -> dict[str, Any]:
    from duihua.report.machine import machine, versions

    return {"machine": machine(), "versions": versions()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="of training, for each system")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="any of duihua,nanochat,nanogpt, with commas")
    parser.add_argument("--nanochat", type=Path, default=None, help="folder of nanochat's snapshot")
    parser.add_argument(
        "--nanogpt", type=Path, default=None, help="folder of nanoGPT's snapshot (needs --nanochat too)"
    )
    parser.add_argument("--peer-python", default=sys.executable, help="Python of the peers' environment")
    parser.add_argument("--seed", type=int, nargs="+", default=[1], help="one or several; medians over them")
    parser.add_argument(
        "--goal", action="store_true", help="also ours in half and a quarter of the time: the two goals"
    )
    parser.add_argument("--alternate", action="store_true", help="every second seed runs the systems in reverse")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="no torch.compile for the peers")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="over race/duihua.yaml")
    parser.add_argument("--nanochat-flag", action="append", default=[], metavar="=FLAG", help="for its training script")
    parser.add_argument("--nanogpt-flag", action="append", default=[], metavar="=FLAG", help="for its training script")
    parser.add_argument("--data", type=Path, default=None, help="data directory (default: that of duihua)")
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain-race"), help="tokenizers, texts, logs")
    parser.add_argument("--output", type=Path, default=None, help="rows, one line each (default: race.jsonl in --work)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    given = parser.parse_args()
    given.systems = [name for name in given.systems.split(",") if name]
    if not given.systems or set(given.systems) - set(SYSTEMS):
        parser.error(f"--systems: there are {', '.join(SYSTEMS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
