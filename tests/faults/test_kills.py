"""kill -9, SIGTERM and Ctrl-C at any moment of a training: the same command goes on, and the last byte is what it would have
been. Half of the moments are drawn from the clock, half from the changes of files: those are where a careless write shows."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

KILLS = 30
REAL_KILLS = 3
REAL = ("recurrent", "classify", "translate")
"""Families that tests/road does not kill on the real command line."""


def killed_often(lab: Any, name: str, lane: int, kills: int) -> list[Path]:
    """Run directories that were killed `kills` times in all and have come to their end."""
    chance = random.Random(f"{name} {lane}")
    _, whole = lab.undisturbed(name)
    outputs = [lab.fresh(name)]
    while kills:
        fault: dict[str, Any] = {}
        after = None
        if kills % 2:
            fault = {"kind": "kill_event", "event": chance.randint(1, max(2, whole.events // 3))}
        else:
            after = chance.uniform(0.02, max(0.05, 0.5 * whole.seconds))
        ended = lab.run(name, outputs[-1], fault, after=after, lane=lane)
        assert ended.code in (0, -signal.SIGKILL), ended.said
        if ended.code:
            kills -= 1
        else:
            outputs.append(lab.fresh(name))
    ended = lab.run(name, outputs[-1], lane=lane)
    assert ended.code == 0, ended.said
    return outputs


def test_kill_9_at_thirty_random_moments_gives_the_same_bytes(lab: Any, name: str) -> None:
    calm, _ = lab.undisturbed(name)
    shares = [KILLS // len(lab.hosts)] * len(lab.hosts)
    found = lab.in_lanes(lambda lane: killed_often(lab, name, lane, shares[lane]))
    for output in (path for paths in found for path in paths):
        assert lab.same(output, calm)
        assert not [path.name for path in output.rglob("*") if ".part" in path.name], "something half-written was left"
    lab.survived("kill", name, sum(shares))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_ends_it_with_130_after_a_checkpoint_and_the_same_command_goes_on(
    lab: Any, name: str, number: signal.Signals
) -> None:
    calm, _ = lab.undisturbed(name)
    output, steps = lab.fresh(name), lab.steps(name)
    at = random.Random(f"{name} {number}").randint(2, steps - 2)
    ended = lab.run(name, output, {"kind": "signal_step", "step": at, "number": int(number)})
    assert ended.code == 130, ended.said
    assert "nothing is lost. Go on with the same command: duihua" in ended.said
    assert (output / "checkpoints" / f"step-{at:08d}").is_dir(), "a checkpoint of that very step"
    again = lab.run(name, output)
    assert again.code == 0, again.said
    assert f"going on from step {at} of {steps}" in again.said
    assert lab.same(output, calm)
    lab.survived("term" if number == signal.SIGTERM else "interrupt", name)


@pytest.mark.parametrize("at", ["first", "last but one"])
def test_interrupted_at_a_step_equals_uninterrupted_bit_for_bit(lab: Any, name: str, at: str) -> None:
    calm, _ = lab.undisturbed(name)
    steps = lab.steps(name)
    step = 1 if at == "first" else steps - 1  # those between are drawn by the test above
    output = lab.fresh(name)
    assert lab.run(name, output, {"kind": "signal_step", "step": step, "number": 15}).code == 130
    assert lab.run(name, output).code == 0
    assert lab.same(output, calm)
    lab.survived("resume", name)


def really_killed(command: list[str], output: Path) -> None:
    """Start a command in a process of its own and kill it soon after its next checkpoint, three times."""
    chance, here = random.Random(str(output)), {**os.environ, "OMP_NUM_THREADS": "1"}

    def checkpoints() -> set[str]:
        return {path.name for path in output.glob("checkpoints/step-*")}

    for _ in range(REAL_KILLS):
        before = checkpoints()
        with subprocess.Popen(command, env=here, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
            while process.poll() is None and checkpoints() <= before:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it had ended before it could be killed"


def test_three_kills_of_the_real_command_give_the_same_bytes(lab: Any) -> None:
    wholes = {name: lab.undisturbed(name)[0] for name in REAL}
    outputs = {name: lab.fresh(name) for name in REAL}
    commands = [
        [sys.executable, "-m", "duihua", *lab.family(name).arguments, "--output", str(output)]
        for name, output in outputs.items()
    ]
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        list(pool.map(really_killed, commands, outputs.values()))
    for name, output in outputs.items():
        ended = lab.run(name, output)
        assert ended.code == 0, ended.said
        assert lab.same(output, wholes[name]), name
        lab.survived("kill-real", name, REAL_KILLS)


def test_the_comparison_notices_a_training_that_forgets_its_place_in_the_data(lab: Any) -> None:
    """The control: what is compared does depend on where a run goes on."""
    calm, _ = lab.undisturbed("pretrain")
    output = lab.fresh("pretrain")
    assert lab.run("pretrain", output, {"kind": "signal_step", "step": 18, "number": 15}).code == 130
    assert lab.run("pretrain", output, {"kind": "forget"}).code == 0
    assert not lab.same(output, calm)


def test_the_comparison_notices_one_number_of_one_weight(lab: Any) -> None:
    calm, _ = lab.undisturbed("sft")
    output = lab.fresh("sft")
    shutil.copytree(calm, output)
    file = output / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert not lab.same(output, calm)
