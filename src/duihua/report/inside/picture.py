"""What a picture is: its name, what it shows, what it needs, its data and its drawing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from duihua.report.inside.style import Language
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from duihua.report.inside.subject import Subject

Need = Literal["model", "translator", "recurrent", "metrics", "measurements"]
NEEDS: dict[Need, Text] = {
    "model": Text("the folder of a language model (decoder)", "一个语言模型（解码器）的目录"),
    "translator": Text("the folder of a translator", "一个翻译模型的目录"),
    "recurrent": Text("the folder of a recurrent language model", "一个循环语言模型的目录"),
    "metrics": Text("the folder of a run or stage, with metrics.jsonl", "含 metrics.jsonl 的运行或阶段目录"),
    "measurements": Text(
        "measurements: --measurements FILE, or a folder with result.json",
        "测量结果：--measurements FILE，或含 result.json 的目录",
    ),
}


@dataclass(frozen=True)
class Picture:
    """One picture.

    data: plain JSON values out of the subject; raises DataError where the subject holds nothing that this picture shows.
    draw: these data as a figure, titles and axes in one language. needs: what the subject must hold, None for nothing.
    """

    name: str
    about: Text
    data: Callable[[Subject], dict[str, Any]]
    draw: Callable[[dict[str, Any], Language], Figure]
    needs: Need | None = None
