"""What a stage could not use, said on the console: nothing is dropped silently. The same counts stand in its result."""

from __future__ import annotations

from collections.abc import Mapping

from duihua import console


def say_left_out(stage: str, of: str, counts: Mapping[str, int]) -> None:
    """One line a reason, the most frequent first; nothing where there is none."""
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        console.say(f"{stage}: left out of {of}: {count:,} x {reason.removeprefix('left out: ')}")
