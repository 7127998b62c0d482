"""What every system's driver has in common: it is told its time, trains, scores its own network, and writes one row.

A driver is a process of its own, so that its start, its imports and its compilation are in its time, and so that a peer runs
in the peer's environment. The time begins when the race starts the process and ends behind the last training step: reading
the network back or writing it down is not counted, and neither is scoring.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from race.pace import Pace

if TYPE_CHECKING:
    from torch import Tensor


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that the race gives to all drivers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--started", type=float, required=True, help="when the time began, in seconds since 1970")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--heldout", type=Path, required=True, help="val.jsonl")
    parser.add_argument("--result", type=Path, required=True, help="file for the row")
    return parser


def read_texts(path: Path) -> list[str]:
    """The documents of a JSONL file."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line)["text"] for line in file]


def finish(
    given: argparse.Namespace,
    pace: Pace,
    *,
    tokens: int,
    parameters: int,
    encode: Callable[[str], Sequence[int]],
    token_bytes: Callable[[int], bytes],
    separator: int,
    context: int,
    log_probabilities: Callable[[Tensor], Tensor],
    **more: Any,
) -> None:
    """Score the held-out documents and write the row."""
    from race.scoring import score  # it imports torch, which the race's own process has no use for

    started = time.monotonic()
    found = score(read_texts(given.heldout), encode, token_bytes, separator, context, log_probabilities)
    row = {
        "bits_per_byte": found.bits_per_byte,
        **pace.row(),
        "tokens": tokens,
        "parameters": parameters,
        "heldout_bytes": found.bytes,
        "heldout_tokens": found.tokens,
        "scoring_seconds": round(time.monotonic() - started, 1),
        **more,
    }
    given.result.write_text(json.dumps(row) + "\n", encoding="utf-8")
