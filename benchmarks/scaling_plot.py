"""The picture of a scaling study: measured runs as points, the law as lines with its range, one colour a size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from duihua.files import write_atomic
from duihua.report.inside.style import SERIES, drawn
from duihua.training.scaling_law import Law

FARTHER = 12
"""How many times the longest run's tokens the lines are drawn to."""


def draw(law: Law, rows: list[dict[str, Any]], path: Path) -> None:
    """Write the SVG: bits per byte over tokens."""
    write_atomic(path, drawn(lambda: _figure(law, rows), "svg", path.name))


def _figure(law: Law, rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    lengths = [row["tokens"] for row in rows]
    tokens = np.geomspace(min(lengths) / 1.2, FARTHER * max(lengths), 40)
    weights = sorted({row["multiplying_weights"] for row in rows})
    for number, each in enumerate(weights):
        colour = SERIES[number % len(SERIES)]
        own = [row for row in rows if row["multiplying_weights"] == each]
        expected = [law.expect(each, count) for count in tokens]
        axes.fill_between(tokens, [e.low for e in expected], [e.high for e in expected], color=colour, alpha=0.12, lw=0)
        axes.plot(tokens, [e.bits for e in expected], color=colour)
        points = [row["tokens"] for row in own], [row["bits_per_byte"] for row in own]
        axes.plot(*points, "o", ms=4.5, color=colour, label=f"size {own[0]['size']}: {each / 1e6:.2g} M")
    axes.set(xscale="log", xlabel="tokens 词元数", ylabel="held-out bits per byte 每字节比特数")
    axes.legend(title="weights that multiply 参与乘法的权重")
    return figure
