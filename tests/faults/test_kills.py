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
REAL = ("recurrent", "dpo", "grpo", "rejection_sampling", "classify", "translate")
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


def really_killed(lab: Any, name: str) -> list[Path]:
    """Run directories of a family whose command, each time in a process of its own, was killed soon after its next checkpoint,
    three times in all. One that ended before it was killed, on a machine that looked away, is followed by another."""
    chance, here = random.Random(name), {**os.environ, "OMP_NUM_THREADS": "1"}
    outputs, kills = [lab.fresh(name)], 0

    def checkpoints() -> set[str]:
        return {path.name for path in outputs[-1].glob("checkpoints/step-*")}

    while kills < REAL_KILLS:
        before = checkpoints()
        command = [sys.executable, "-m", "duihua", *lab.family(name).arguments, "--output", str(outputs[-1])]
        with subprocess.Popen(command, env=here, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
            while process.poll() is None and checkpoints() <= before:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        assert process.returncode in (0, -signal.SIGKILL)
        if process.returncode:
            kills += 1
        else:
            outputs.append(lab.fresh(name))
            assert len(outputs) <= 2 * REAL_KILLS, "one run after the other ended before it could be killed"
    return outputs


def test_three_kills_of_the_real_command_give_the_same_bytes(lab: Any) -> None:
    wholes = {name: lab.undisturbed(name)[0] for name in REAL}
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        killed = dict(zip(REAL, pool.map(lambda name: really_killed(lab, name), REAL), strict=True))
    for name, outputs in killed.items():
        ended = lab.run(name, outputs[-1])
        assert ended.code == 0, ended.said
        assert all(lab.same(output, wholes[name]) for output in outputs), name
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
