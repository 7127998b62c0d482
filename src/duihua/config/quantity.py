"""`10M`, `1.5B`, `3e15`: large numbers as people write them on a command line."""

from __future__ import annotations

SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}


def quantity(text: str | int | float) -> float:
    """`10M` -> 10,000,000; k, M, B (or G), T, P and E in either case; `1e9` and `1,000` too. ValueError for anything else."""
    digits = str(text).strip().lower().replace(",", "").replace("_", "")
    suffix = digits[-1:] if digits[-1:].isalpha() else ""
    if suffix not in SUFFIXES:
        raise ValueError(f"{text!r} is not a number")
    return float(digits.removesuffix(suffix)) * SUFFIXES[suffix]
