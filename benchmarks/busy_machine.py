"""Training while another program keeps one core busy: seconds of a step, alone and beside it, by how our threads wait.

    python benchmarks/busy_machine.py                          # two threads, two minutes
    python benchmarks/busy_machine.py --threads 8 --busy 3

The reason for duihua.cores.share_the_cores. The program beside is an empty loop in a session of its own, since Linux divides
the cores between sessions first: nice does not help between them. Every way is a process of its own, in turns; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from duihua import console
from duihua.cores import SPINS

WAYS: dict[str, dict[str, str]] = {
    "OpenMP's own": {},
    f"{SPINS} turns, then sleep (the command line's)": {"GOMP_SPINCOUNT": str(SPINS)},
    "sleep at once": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {},
}
"""What the environment says."""


def steps(threads: int, seconds: float) -> float:
    """Seconds of a step of the race's shape of before (8 rows of 256 tokens, fp32) in this process: forward, loss, backward."""
    import torch

    from duihua.models.config import DecoderConfig
    from duihua.models.decoder import Decoder
    from duihua.stages.pretrain import language_model_loss

    torch.set_num_threads(threads)
    shape = DecoderConfig(
        vocabulary_size=8192, width=192, layers=4, heads=3, key_value_heads=1, head_width=64, feed_forward_width=512,
        context=256,
    )  # fmt: skip
    decoder = Decoder(shape).initialise(0)
    ids = torch.randint(8192, (8, 257))
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 4:
        began = time.perf_counter()
        language_model_loss(decoder, {"token_ids": ids[:, :-1], "targets": ids[:, 1:]}).sum.backward()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """So many empty loops, each in a session of its own."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(programs)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(way: str, threads: int, seconds: float) -> float:
    """Seconds of a step in a process of its own."""
    unset = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    number = 1 if way == "one thread" else threads
    command = [sys.executable, __file__, "--child", "--threads", str(number), "--seconds", str(seconds)]
    done = subprocess.run(
        command, env={**unset, **WAYS[way]}, check=True, capture_output=True, text=True, start_new_session=True
    )
    return float(done.stdout.split()[-1])


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=1, help="programs beside (default 1)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn, at least four steps (default 6)")
    parser.add_argument("--repeats", type=int, default=2, help="turns of each way (default 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(steps(given.threads, given.seconds))
        return 0
    rows: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    for beside in (0, given.busy):
        with busy(beside):
            for way, row in rows.items():
                found = [measure(way, given.threads, given.seconds) for _ in range(given.repeats)]
                row["beside" if beside else "alone"] = statistics.median(found)
    if given.json:
        print(json.dumps(rows))
        return 0
    shown = [[way, *(f"{1e3 * row[key]:,.0f}" for key in ("alone", "beside"))] for way, row in rows.items()]
    console.table("a step, ms", ("waiting threads", "alone", f"beside {given.busy} busy"), shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
