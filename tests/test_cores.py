"""How threads wait is settled before torch, whose OpenMP reads it once, is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from duihua.cores import SPINS, share_the_cores, usable_cores

BEFORE = "from duihua.cli.main import main; main(['--version']); import torch"
AFTER = "import torch; from duihua.cli.main import main; main(['--version'])"


def said_by_openmp(program: str, **environment: str) -> str:
    """What GNU's OpenMP says of its settings when it is loaded."""
    kept = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings another OpenMP elsewhere")
def test_the_command_line_lets_waiting_threads_sleep_soon() -> None:
    ours = f"GOMP_SPINCOUNT = '{SPINS}'"
    assert ours in said_by_openmp(BEFORE)
    assert ours not in said_by_openmp(AFTER)  # too late, which the check would see
    assert "GOMP_SPINCOUNT = '70'" in said_by_openmp(BEFORE, GOMP_SPINCOUNT="70")


def test_what_the_user_has_set_stays() -> None:
    empty: dict[str, str] = {}
    share_the_cores(empty)
    assert empty == {"GOMP_SPINCOUNT": str(SPINS)}
    for theirs in ({"GOMP_SPINCOUNT": "1"}, {"OMP_WAIT_POLICY": "active"}):
        found = dict(theirs)
        share_the_cores(found)
        assert found == theirs


def test_there_is_a_core() -> None:
    assert usable_cores() >= 1
