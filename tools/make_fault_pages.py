"""Write the table of faults in docs/training/faults.md and faults.zh.md from the record of the last run of tests/faults.

    python -m pytest tests/faults --faults-report docs/training/faults.json
    python tools/make_fault_pages.py            # writes the tables anew
    python tools/make_fault_pages.py --check    # writes nothing; fails where a page is not up to date

Why a tool: what a page says was survived should be what survived. A row that no test has recorded is an error here, and so is
a record of a fault that has no row.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs" / "training"
RECORD = FOLDER / "faults.json"
PAGES = {"en": FOLDER / "faults.md", "zh": FOLDER / "faults.zh.md"}
_BLOCK = re.compile(r"<!-- faults -->\n.*?<!-- /faults -->", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """What happens, and what is held afterwards, in both languages."""

    happens: tuple[str, str]
    held: tuple[str, str]


SAME = ("the same command ends with the same bytes", "再次运行同一条命令，结果逐字节相同")
FAULTS: Mapping[str, Row] = MappingProxyType(
    {
        "kill": Row(("kill -9 at random moments", "在随机时刻 kill -9"), SAME),
        "kill-real": Row(("kill -9 of the real command", "对真实命令 kill -9"), SAME),
        "term": Row(
            ("SIGTERM", "SIGTERM"),
            ("a checkpoint of that very step, exit 130; " + SAME[0], "立即保存该步的检查点，退出码 130；" + SAME[1]),
        ),
        "interrupt": Row(
            ("Ctrl-C", "Ctrl-C"),
            ("a checkpoint of that very step, exit 130; " + SAME[0], "立即保存该步的检查点，退出码 130；" + SAME[1]),
        ),
        "resume": Row(("stopped after the first and the last step but one", "在第一步后和倒数第二步后停下"), SAME),
        "full": Row(
            ("the disk fills up in the middle of a save", "保存到一半磁盘写满"),
            ("one line says so, the checkpoints stay; " + SAME[0], "一行说明原因，已有检查点完好；" + SAME[1]),
        ),
        "full-tmpfs": Row(
            ("a small file system that is really full", "真正写满的小文件系统"),
            ("as above", "同上"),
        ),
        "read-only": Row(
            ("the folder cannot be written to", "目录不可写"),
            ("one line names it, nothing is touched; " + SAME[0], "一行指出目录，什么都不动；" + SAME[1]),
        ),
        "damaged": Row(
            ("the newest checkpoint is cut off, has a flipped bit, or lacks a file",
             "最新的检查点被截断、某一位翻转或缺少文件"),
            ("it is named and the one before it used; " + SAME[0], "指出损坏的检查点并改用前一个；" + SAME[1]),
        ),
        "all-damaged": Row(
            ("every checkpoint is damaged", "所有检查点都损坏"),
            ("refused, nothing is trained over them", "拒绝继续，绝不覆盖"),
        ),
        "nan": Row(
            ("NaN in the gradient of two steps", "两步的梯度中出现 NaN"),
            ("the steps are skipped and counted, every weight is a number", "跳过并计数，所有权重都是有限数"),
        ),
        "inf": Row(
            ("infinity in the gradient of two steps", "两步的梯度中出现无穷大"),
            ("the steps are skipped and counted, every weight is a number", "跳过并计数，所有权重都是有限数"),
        ),
        "stopped": Row(
            ("NaN in every step from some step on", "从某步起每步都是 NaN"),
            ("stopped after ten steps with advice, the good checkpoint stays", "十步后停止并给出建议，保留好的检查点"),
        ),
        "memory": Row(
            ("out of memory", "内存不足"),
            ("the micro-batch halves, the effective batch and the losses stay, and the log says so",
             "微批减半，有效批大小和损失不变，日志中说明"),
        ),
        "clock": Row(
            ("the clock jumps ten days forward, or back, at every look", "每次读时钟都向前或向后跳十天"),
            ("the same bytes and the same checkpoints; spans of time stay right", "逐字节相同，检查点也相同；时长仍然正确"),
        ),
        "data": Row(
            ("a file of data is edited between two calls", "两次运行之间数据文件被修改"),
            ("refused with three ways out, the old content, another output or a flag",
             "拒绝继续并给出三种选择：恢复原内容、换输出目录或加参数"),
        ),
        "data-during": Row(
            ("a file of data is edited while the stage runs", "阶段运行时数据文件被修改"),
            ("said at its end, no result is left", "结束时指出，不留下结果"),
        ),
    }
)  # fmt: skip


def table(record: Mapping[str, Any], language: str) -> str:
    """The table and the line about the run below it. Raises SystemExit for a record that does not fit the rows."""
    survived, families = record["survived"], record["families"]
    strange = sorted({*survived} ^ {*FAULTS})
    if strange:
        raise SystemExit(
            f"rows and record differ in: {', '.join(strange)}; run tests/faults whole, with --faults-report"
        )
    place = 0 if language == "en" else 1
    head = [("fault", "what is held"), ("故障", "保证")][place]
    lines = [f"| {head[0]} | {head[1]} | {' | '.join(families)} |", "|---|---|" + "---:|" * len(families)]
    for name, row in FAULTS.items():
        counts = [str(survived[name].get(family, "–")) for family in families]
        lines.append(f"| {row.happens[place]} | {row.held[place]} | {' | '.join(counts)} |")
    said = (
        "Times that a run of each kind met with the fault and ended as the table says; none did not. {date}, {seconds:g} s, "
        "{machine}, Python {python}.",
        "每类训练遭遇该故障并按表中所述结束的次数；没有例外。{date}，{seconds:g} 秒，{machine}，Python {python}。",
    )[place]
    if "added" in record:
        said += (" Counts of some rows are of {added}.", "部分行的次数测于 {added}。")[place]
    return "\n".join([*lines, "", said.format(**record)])


def written(page: str, record: Mapping[str, Any], language: str) -> str:
    """The page with its table anew."""
    return _BLOCK.sub(lambda _: f"<!-- faults -->\n{table(record, language)}\n<!-- /faults -->", page)


def main() -> int:
    """Write or check the pages. Returns 0, or 1 where --check finds one that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    stale = []
    for language, path in PAGES.items():
        page = path.read_text(encoding="utf-8")
        new = written(page, record, language)
        if new != page:
            stale.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
    if check and stale:
        print(f"not up to date: {', '.join(stale)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
