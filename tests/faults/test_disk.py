"""Disks that fill up, folders that cannot be written to, files that were damaged: one line says what and what to do, nothing
that was there is touched, and with the cause gone the same command ends with the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FILES = ("weights.safetensors", "state.safetensors", "state.json", "SHA256SUMS")


def checkpoints(run: Path) -> dict[str, bytes]:
    """Every file of every checkpoint of a run."""
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.glob("checkpoints/step-*/*"))}


def test_a_disk_that_fills_up_in_the_middle_of_a_save_costs_nothing_but_the_time_since_the_last(
    lab: Any, name: str
) -> None:
    calm, _ = lab.undisturbed(name)
    output = lab.stopped(name)
    before = checkpoints(output)
    weights = max(len(data) for path, data in before.items() if path.endswith(".safetensors"))
    ended = lab.run(name, output, {"kind": "full", "bytes": weights // 2})
    assert ended.code == 2, ended.said
    assert "Traceback" not in ended.said
    assert "Free some space" in ended.said.splitlines()[-1]
    assert checkpoints(output) == before
    assert not list(output.glob("checkpoints/.part-*")), "what was half-written is taken away"
    assert lab.run(name, output).code == 0
    assert lab.same(output, calm)
    lab.survived("full", name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own whose size is set by calling it; skips where one may not mount."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("needs the right to mount")

    def sized(size: str) -> Path:
        options = f"remount,size={size}" if os.path.ismount(place) else f"size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip("needs the right to mount")
        return place

    yield sized
    if os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


def test_a_file_system_that_is_really_full_is_survived_too(lab: Any, small_disk: Callable[[str], Path]) -> None:
    """ENOSPC of the kernel. There is room when training begins; then something else takes what is left."""
    calm, _ = lab.undisturbed("pretrain")
    output = small_disk("8m") / "run"
    assert lab.run("pretrain", output, {"kind": "signal_step", "step": 7, "number": int(signal.SIGTERM)}).code == 130
    before = checkpoints(output)
    other = output.parent / "other"
    other.write_bytes(b"\0" * (shutil.disk_usage(output).free - 60_000))
    ended = lab.run("pretrain", output)
    assert ended.code == 2, ended.said
    assert "Free some space" in ended.said.splitlines()[-1]
    assert checkpoints(output) == before
    other.unlink()
    assert lab.run("pretrain", output).code == 0
    assert lab.same(output, calm)
    lab.survived("full-tmpfs", "pretrain")


def test_a_folder_that_cannot_be_written_to_is_said_in_one_line(lab: Any, name: str) -> None:
    calm, _ = lab.undisturbed(name)
    output = lab.stopped(name)
    before = checkpoints(output)
    folders = [output / "checkpoints", output]
    for folder in folders:
        folder.chmod(0o555)
    try:
        ended = lab.run(name, output, {"kind": "read_only"})
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert ended.code == 2, ended.said
    assert "Traceback" not in ended.said
    assert str(output) in ended.said.splitlines()[-1]
    assert checkpoints(output) == before
    assert lab.run(name, output).code == 0
    assert lab.same(output, calm)
    lab.survived("read-only", name)


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "missing"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(lab: Any, name: str, damage: str) -> None:
    """Each kind of damage meets another file in each family; every pair of both is in tests/training/test_checkpoints.py."""
    calm, _ = lab.undisturbed(name)
    output = lab.stopped(name)
    file = FILES[(len(name) + len(damage)) % len(FILES)]
    target = output / "checkpoints" / "step-00000007" / file
    data = target.read_bytes()
    if damage == "missing":
        target.unlink()
    elif damage == "truncated":
        target.write_bytes(data[: len(data) // 2])
    else:
        place = data.rfind(b'"epoch": ') + 9 if b'"epoch": ' in data else len(data) - 5
        target.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    ended = lab.run(name, output)
    assert ended.code == 0, ended.said
    assert f"passed over a damaged checkpoint, step-00000007 ({file} " in ended.said, ended.said
    assert "going on from step 6" in ended.said
    assert lab.same(output, calm)
    lab.survived("damaged", name)


def test_a_bit_in_the_place_in_the_data_would_go_unseen_without_its_hash(lab: Any) -> None:
    """The control: flip a digit in state.json and make its hash fit, and the run ends elsewhere. Nothing but the hash tells."""
    calm, _ = lab.undisturbed("pretrain")
    output = lab.stopped("pretrain")
    folder = output / "checkpoints" / "step-00000007"
    text = (folder / "state.json").read_text(encoding="utf-8")
    assert '"row": 28' in text
    (folder / "state.json").write_text(text.replace('"row": 28', '"row": 24'), encoding="utf-8")
    done = subprocess.run(["sha256sum", *FILES[:3]], cwd=folder, check=True, capture_output=True, text=True)
    (folder / "SHA256SUMS").write_text(done.stdout, encoding="utf-8")
    assert lab.run("pretrain", output).code == 0
    assert not lab.same(output, calm)


def test_when_every_checkpoint_is_damaged_nothing_is_trained_over_them(lab: Any, name: str) -> None:
    output = lab.stopped(name)
    for file in output.glob("checkpoints/*/state.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    before = checkpoints(output)
    ended = lab.run(name, output)
    assert ended.code == 2, ended.said
    assert "all checkpoints are damaged: step-0000000" in ended.said.splitlines()[-1]
    assert checkpoints(output) == before
    lab.survived("all-damaged", name)
