"""What a recurrent network can remember: recall after 50 blanks, how far a gradient reaches, steps per second against length.

    python benchmarks/recurrent_memory.py                          # all three, 3 seeds: about five minutes on one core
    python benchmarks/recurrent_memory.py --parts memory reach --seeds 1

memory: accuracy at the recall step of the copy-memory task (stages/memory_task.py), for the tanh RNN as torch starts it, the
LSTM with a forget bias of 1, 4 and 6, and the GRU. reach: norm of the gradient 10, 50 and 100 steps back
(evaluation/gradient_reach.py). speed: training steps a second against length for RNN, LSTM and Transformer of about the same
size (evaluation/length_speed.py); it depends on the machine and on what else runs there.

One line of JSON a finished cell goes into --output; run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

PARTS = ("memory", "reach", "speed")
MEMORY: dict[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn"},
    "rnn, rate 1e-3": {"cell": "rnn", "learning_rate": 1e-3},
    "lstm, forget bias 1": {"cell": "lstm", "forget_bias": 1.0},
    "lstm, forget bias 4": {"cell": "lstm", "forget_bias": 4.0},
    "lstm, forget bias 6": {"cell": "lstm", "forget_bias": 6.0},
    "gru": {"cell": "gru"},
}
"""Models of the copy-memory task, all with 64 units, 400 steps of 16 sequences and Adam at 1e-2 where nothing else is said."""
REACH: dict[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn"},
    "rnn, U doubled": {"cell": "rnn", "recurrent_scale": 2.0},
    "lstm, forget bias 1": {"cell": "lstm", "forget_bias": 1.0},
    "lstm, torch's start": {"cell": "lstm", "forget_bias": None},
    "gru": {"cell": "gru"},
}


def memory(name: str, seed: int) -> dict[str, Any]:
    """Train and test one network once."""
    from duihua.stages.memory_task import MemoryTask, train_memory

    with tempfile.TemporaryDirectory(prefix="duihua-") as folder:
        _, result = train_memory(directory=Path(folder), seed=seed, **MEMORY[name])
    return {**dataclasses.asdict(result), "task": dataclasses.asdict(MemoryTask())}


def reach(name: str, _: int) -> dict[str, Any]:
    """Norms at all lags; the seeds are inside."""
    from duihua.evaluation.gradient_reach import gradient_reach

    return gradient_reach(**REACH[name]).to_mapping()


def speed(_: str, __: int) -> dict[str, Any]:
    """All models and lengths, measured together so that they meet the same machine."""
    from duihua.evaluation.length_speed import step_times

    return {"times": [each.to_mapping() for each in step_times()]}


def wanted_cells(setup: argparse.Namespace) -> list[tuple[str, str, int]]:
    """(part, model, seed) of all that was asked for."""
    cells = [("memory", name, seed) for seed in setup.seeds for name in MEMORY]
    cells += [("reach", name, 0) for name in REACH] + [("speed", "all", 0)]
    return [cell for cell in cells if cell[0] in setup.parts]


RUN: dict[str, Callable[[str, int], dict[str, Any]]] = {"memory": memory, "reach": reach, "speed": speed}


def tables(lines: list[dict[str, Any]]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, columns, rows) for each part that was measured."""
    found = []
    memories = [line for line in lines if line["part"] == "memory"]
    if memories:
        task = memories[0]["task"]
        rows = []
        for name in MEMORY:
            of_name = sorted((line for line in memories if line["model"] == name), key=lambda line: line["seed"])
            if of_name:
                accuracies = ", ".join(f"{100 * line['accuracy']:.1f}" for line in of_name)
                mean = 100 * sum(line["accuracy"] for line in of_name) / len(of_name)
                rows.append([name, f"{of_name[0]['parameters']:,}", f"{mean:.1f}", accuracies])
        title = f"Recall of one of {task['symbols']} symbols after {task['lag']} to {task['lag'] + task['spread']} blanks, %"
        found.append((title, ["model", "parameters", "mean", "each seed"], rows))
    reaches = [line for line in lines if line["part"] == "reach"]
    if reaches:
        rows = [[line["model"], *(f"{line['norms'][lag]:.0e}" for lag in (10, 50, 100))] for line in reaches]
        found.append(("Norm of the gradient k steps back", ["model", "k = 10", "k = 50", "k = 100"], rows))
    for line in lines:
        if line["part"] == "speed":
            models = list(dict.fromkeys(each["model"] for each in line["times"]))
            lengths = sorted({each["length"] for each in line["times"]})
            rate = {(each["model"], each["length"]): each["steps_per_second"] for each in line["times"]}
            rows = [[model, *(f"{rate[model, length]:.1f}" for length in lengths)] for model in models]
            found.append(("Training steps a second against length", ["model", *map(str, lengths)], rows))
    return found


def markdown(lines: list[dict[str, Any]], setup: argparse.Namespace) -> str:
    """The section for docs/benchmarks.md."""
    from duihua.report.machine import machine, versions

    parts = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = ["## Memory of recurrent networks", "", f"`{setup.command}`", ""]
    text += [f"{datetime.now(UTC):%Y-%m-%d}; {machine()['processor']}, one thread; {parts}.", ""]
    for title, columns, rows in tables(lines):
        text += [f"{title}:", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        text += [f"| {' | '.join(row)} |" for row in rows] + [""]
    return "\n".join(text)


def main() -> None:
    """Measure what is missing, then print."""
    setup = _arguments()
    import torch

    from duihua import console
    from duihua.files import sha256_json

    torch.set_num_threads(1)
    marks = {
        part: sha256_json([settings, 2])[:12] for part, settings in (("memory", MEMORY), ("reach", REACH), ("speed", 0))
    }
    stored = [json.loads(line) for line in setup.output.read_text().splitlines()] if setup.output.exists() else []
    cells = {
        (line["part"], line["model"], line["seed"]): line for line in stored if marks[line["part"]] == line["mark"]
    }
    wanted = wanted_cells(setup)
    with console.json_output(), open(setup.output, "a", encoding="utf-8") as file:  # the trainer's talk goes to stderr
        for part, name, seed in wanted:
            if (part, name, seed) in cells:
                continue
            line = {"part": part, "model": name, "mark": marks[part], **RUN[part](name, seed), "seed": seed}
            cells[part, name, seed] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
    lines = [cells[cell] for cell in wanted]
    if setup.markdown:
        setup.markdown.write_text(markdown(lines, setup), encoding="utf-8")
    if setup.json:
        print(json.dumps({"cells": lines}))
        return
    for title, columns, rows in tables(lines):
        console.table(title, columns, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the memory task")
    parser.add_argument("--output", type=Path, default=Path("recurrent_memory.jsonl"), help="cells, one line each")
    parser.add_argument("--markdown", type=Path, default=None, help="write the section for docs/benchmarks.md here")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    setup = parser.parse_args()
    setup.command = shlex.join(["python", "benchmarks/recurrent_memory.py", *sys.argv[1:]])
    return setup


if __name__ == "__main__":
    sys.exit(main())
