"""How every picture looks: colours, fonts, a title above, a note below, and how it becomes a file.

Why fonts are looked after here: matplotlib draws a box for a character that its font does not have, and a box in place of
我 says nothing. A Chinese font is looked for among the installed ones; where there is none, an SVG is written all the
same (its text stays text, so the reader's own fonts draw it) with a warning, and a PNG, whose boxes would stay boxes, is
refused. matplotlib is imported only here and only when something is drawn: it takes most of a second. Figures are made
without pyplot, so that nothing is left in a global list, and settings hold only inside `drawn`.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from duihua import console
from duihua.console import display_width
from duihua.errors import DuihuaError
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Language = Literal["en", "zh"]
Format = Literal["svg", "png"]

INK, SOFT, LINE, PAPER = "#1c2427", "#56646a", "#d5dad6", "#ffffff"
ACCENT, WARM, COOL, GOLD, PLUM = "#0c6a6b", "#b6502b", "#4a68ad", "#a97b0f", "#8a4f8a"
SERIES = (ACCENT, WARM, COOL, GOLD, PLUM, SOFT)
HIDDEN = "#e9ebe8"
"""Colour of a cell that the mask hides."""

CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti SC",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Noto Sans CJK JP",
)
FAMILIES = "'Noto Sans CJK SC', 'Noto Sans SC', 'PingFang SC', 'Microsoft YaHei', 'DejaVu Sans', sans-serif"
"""What an SVG asks for, in this order, wherever it is opened."""
FONT_REMEDY = "Install a Chinese font (Debian and Ubuntu: apt install fonts-noto-cjk), or write SVG with --format svg"

TITLE_INCHES, LINE_INCHES, MARGIN_INCHES = 0.42, 0.185, 0.12


def pick(of: Text, language: Language, /, **values: object) -> str:
    """A text in one language, its {values} filled in."""
    return (of.zh if language == "zh" else of.en).format(**values)


def chinese_font() -> str | None:
    """The first installed font with Chinese characters."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in CHINESE_FONTS if name in installed), None)


def settings() -> Any:  # matplotlib's own type is the list of its keys
    """matplotlib's settings for all pictures."""
    family = [name for name in (chinese_font(), "DejaVu Sans") if name]
    return {
        "font.family": family,
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": SOFT,
        "axes.edgecolor": LINE,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": False,
        "axes.unicode_minus": True,
        "axes.prop_cycle": _cycle(),
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "mathtext.fontset": "dejavusans",
        "svg.fonttype": "none",
        "svg.hashsalt": "duihua",
    }


def _cycle() -> Any:
    from cycler import cycler

    return cycler(color=SERIES)


def drawn(draw: Callable[[], Figure], form: Format, name: str) -> bytes:
    """The picture as a file's content. Warns on standard error of characters that no installed font has; DuihuaError where
    these are Chinese and the picture is a PNG."""
    import matplotlib

    with warnings.catch_warnings(record=True) as said, matplotlib.rc_context(settings()):
        warnings.simplefilter("always")
        figure = draw()
        file = io.BytesIO()
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(file, format=form, dpi=160, metadata=metadata)
    missing = sorted({chr(int(found[1])) for one in said if (found := re.match(r"Glyph (\d+) ", str(one.message)))})
    if missing:
        shown = " ".join(character if character.isprintable() else f"U+{ord(character):04X}" for character in missing)
        if form == "png" and any(display_width(character) == 2 and ord(character) < 0x1F000 for character in missing):
            raise DuihuaError(f"no installed font can draw {shown}", where=name, remedy=FONT_REMEDY)
        console.warn(f"duihua: {name}: no installed font can draw {shown}. {FONT_REMEDY}.")
    data = file.getvalue()
    return _with_families(data) if form == "svg" else data


def _with_families(svg: bytes) -> bytes:
    """The fonts of this machine replaced by a list that holds one on every machine."""
    text = svg.decode("utf-8")
    text = re.sub(r"(font: (?:[\w.]+ )*?[\d.]+px )[^;\"]*", lambda found: found[1] + FAMILIES, text)
    return re.sub(r"font-family: [^;\"]*", f"font-family: {FAMILIES}", text).encode("utf-8")


def wrapped(text: str, columns: int) -> list[str]:
    """Lines of at most so many columns: broken at spaces, and between Chinese characters but not before a mark."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for piece in re.findall(
            r"[\u2e80-\u9fff\uff00-\uffef][，。、；：！？）》”…]*|[^\s\u2e80-\u9fff\uff00-\uffef]+|\s+", paragraph
        ):
            if line.strip() and display_width(line + piece.rstrip()) > columns:
                lines.append(line.rstrip())
                line = ""
            line += piece if line or piece.strip() else ""
        lines.append(line.rstrip())
    return lines


def canvas(width: float, height: float, title: str, note: str = "") -> Figure:
    """An empty figure: `width` by `height` inches for the axes, a title above and a wrapped note below them."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = int((width - 2 * MARGIN_INCHES) * 15.5)
    titles = wrapped(title, int(columns * 0.72))
    lines = wrapped(note, columns) if note else []
    above = TITLE_INCHES + 0.25 * (len(titles) - 1)
    below = len(lines) * LINE_INCHES + (0.16 if lines else 0.0)
    total = above + height + below + MARGIN_INCHES
    figure = Figure(figsize=(width, total))
    bottom = (below + MARGIN_INCHES) / total
    box = (0.0, bottom, 1.0, height / total)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=box, w_pad=0.08, h_pad=0.1, wspace=0.03, hspace=0.05))
    left = MARGIN_INCHES / width
    figure.text(left, 1 - 0.13 / total, "\n".join(titles), fontsize=13, weight="bold", va="top", linespacing=1.25)
    if lines:
        figure.text(
            left, MARGIN_INCHES / total, "\n".join(lines), fontsize=8.8, color=SOFT, va="bottom", linespacing=1.45
        )
    return figure


def colours(kind: Literal["sequential", "diverging"] = "sequential") -> Colormap:
    """From paper to the accent, or from warm over paper to the accent."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = {
        "sequential": ["#fbfcfb", "#cfe6e3", "#7fbcb7", "#2f8785", "#0a4f50"],
        "diverging": ["#9c3f1d", "#e0a184", "#fbfbf9", "#84bdb8", "#0c6a6b"],
    }[kind]
    made = LinearSegmentedColormap.from_list(f"duihua-{kind}", stops)
    made.set_bad(HIDDEN)
    return made


Matrix = Sequence[Sequence[float | None]]


def heat(
    axes: Axes,
    matrix: Matrix,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    kind: Literal["sequential", "diverging"] = "sequential",
    low: float | None = None,
    high: float | None = None,
    numbers: str = "",
    hidden: str = "",
    square: bool = True,
    size: float = 8.0,
    room: int = 4,
) -> Any:
    """A matrix as coloured cells; returns what a colour bar needs.

    rows, columns: labels, left out where empty. numbers: how the cells' numbers are written (".2f"), "" for none. None in
    the matrix is drawn as hidden, with the text `hidden`. room: columns of text that a column label has before it stands
    upright. low, high: ends of the colours; a diverging map is balanced around 0.
    """
    import numpy

    values = numpy.array([[math.nan if cell is None else cell for cell in row] for row in matrix], dtype=float)
    shown = numpy.ma.masked_invalid(values)
    if low is None or high is None:
        top = float(abs(shown).max()) if shown.count() else 1.0
        found_low = -top if kind == "diverging" else min(0.0, float(shown.min()) if shown.count() else 0.0)
        low, high = found_low if low is None else low, (top or 1.0) if high is None else high
    count_rows, count_columns = values.shape
    cells = values.size
    if cells <= 1600:  # drawn as shapes, sharp at any size
        x, y = numpy.arange(count_columns + 1) - 0.5, numpy.arange(count_rows + 1) - 0.5
        edge: dict[str, Any] = (
            {"edgecolors": PAPER, "linewidth": 0.6}
            if cells <= 400 and count_rows <= 24
            else {"edgecolors": "face", "linewidth": 0.0}
        )
        picture: Any = axes.pcolormesh(x, y, shown, cmap=colours(kind), vmin=low, vmax=high, **edge)
        axes.set_facecolor(HIDDEN)
        axes.set_xlim(-0.5, count_columns - 0.5)
        axes.set_ylim(count_rows - 0.5, -0.5)
        axes.set_aspect("equal" if square else "auto")
    else:
        picture = axes.imshow(
            shown,
            cmap=colours(kind),
            vmin=low,
            vmax=high,
            aspect="equal" if square else "auto",
            interpolation="nearest",
        )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    label_ticks(axes, rows, columns, room)
    if numbers:
        middle = 0.62 * (high - low)
        for i, row in enumerate(matrix):
            for j, cell in enumerate(row):
                text = hidden if cell is None else signed(cell, numbers)
                strong = cell is not None and (abs(cell) > 0.6 * high if kind == "diverging" else cell - low > middle)
                axes.text(
                    j,
                    i,
                    text,
                    ha="center",
                    va="center",
                    fontsize=size,
                    color=SOFT if cell is None else PAPER if strong else INK,
                )
    return picture


def signed(value: float, form: str) -> str:
    """A number with a real minus sign, and none before a zero."""
    text = format(value, form)
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def label_ticks(axes: Axes, rows: Sequence[str], columns: Sequence[str], room: int = 4) -> None:
    """Texts at the rows and columns of a matrix; long column labels stand upright."""
    upright = any(display_width(text) > room for text in columns)
    axes.set_yticks(range(len(rows)), [plain(text) for text in rows])
    axes.set_xticks(range(len(columns)), [plain(text) for text in columns], rotation=90 if upright else 0)


def number_ticks(axes: Axes, rows: int, columns: int, every: int) -> None:
    """Numbers at every so many rows and columns of a large matrix."""
    axes.set_yticks(range(0, rows, every), [str(number) for number in range(0, rows, every)])
    axes.set_xticks(range(0, columns, every), [str(number) for number in range(0, columns, every)])


def plain(text: str) -> str:
    """Text that matplotlib must not read as mathematics."""
    return text.replace("$", r"\$")


def bare(axes: Axes) -> None:
    """No axes at all, for diagrams."""
    axes.set_axis_off()
    axes.set_aspect("equal")
