"""Write the tables in docs/architecture: what each preset sets, and what the ablation measured.

    python tools/make_architecture_pages.py            # writes the tables of every page anew
    python tools/make_architecture_pages.py --check    # writes nothing; fails where a page is not up to date

Why a tool: a number that is typed is wrong sooner or later, and each page says everything twice, in English and in
Chinese. A page names its config fields and its variants (the names in benchmarks/ablation.py) in two comment lines:

    <!-- fields: norm -->
    <!-- variants: norm=layer; norm_place=post -->

and holds pairs of marker lines, `<!-- presets -->` and `<!-- ablation -->`, each once in either language. Everything else
is written by hand. Without docs/architecture/ablation.json (what `benchmarks/ablation.py --json` printed, with command,
machine, versions, date and seconds added) the pairs of `ablation` stay empty.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from duihua.models.config import RopeScaling
from duihua.models.presets import PRESETS

Language = Literal["en", "zh"]
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "architecture"
BENCHMARK = ROOT / "benchmarks" / "ablation.py"
SHOWN = ("gpt1", "gpt2", "llama-2-7b", "llama-3.1-8b", "qwen3-0.6b", "qwen3-8b", "qwen3", "fast")
"""Presets in the table of each page; `qwen3` is the default."""
CHINESE = "\n## 中文\n"
"""The heading from which on a page is Chinese."""
_BLOCK = re.compile(r"<!-- (presets|ablation) -->\n.*?<!-- /\1 -->", re.DOTALL)
_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "preset": "preset",
        "default": " (default)",
        "True": "yes",
        "False": "no",
        "None": "none",
        "head": "| variant | what it changes | steps | parameters | seeds | bits per byte | difference |",
        "nothing": "nothing",
        "diverged": "diverged",
        "about": "Bits per byte on held-out documents of `race-text`, lower is better: mean over the seeds; the difference from"
        " the default is paired by seed, with its standard error. Every variant had the same processor time: {seconds:g}"
        " seconds of training a seed. Measured on {date}. Machine: {machine}. Versions: {versions}. Command: `{command}`.",
    },
    "zh": {
        "preset": "预设",
        "default": "（默认）",
        "True": "是",
        "False": "否",
        "None": "无",
        "head": "| 变体 | 改动 | 步数 | 参数 | 种子数 | 每字节比特数 | 差值 |",
        "nothing": "无",
        "diverged": "发散",
        "about": "`race-text` 留出文档上的每字节比特数，越低越好：各随机种子的平均值；与默认之差按种子配对，并给出其标准误。"
        "各变体的处理器时间相同：每个种子训练 {seconds:g} 秒。测量日期：{date}。机器：{machine}。版本：{versions}。"
        "命令：`{command}`。",
    },
}


@dataclass(frozen=True)
class Page:
    """The text of a page and what its comment lines name."""

    path: Path
    text: str
    fields: tuple[str, ...]
    variants: tuple[str, ...]


def read_page(path: Path) -> Page:
    """Raises ValueError for a page without Chinese half or whose marker pairs are not once in either language."""
    text = path.read_text(encoding="utf-8")
    fields, variants = _names(text, "fields", ","), _names(text, "variants", ";")
    if text.count(CHINESE) != 1:
        raise ValueError(f"{path.name}: needs one heading '## 中文'")
    for half in text.split(CHINESE):
        kinds = sorted(match[1] for match in _BLOCK.finditer(half))
        if kinds != (["ablation"] if variants else []) + ["presets"]:
            raise ValueError(f"{path.name}: {' and '.join(kinds) or 'no'} markers in one of its halves")
    return Page(path, text, fields, variants)


def _names(text: str, kind: str, separator: str) -> tuple[str, ...]:
    line = re.search(rf"^<!-- {kind}: (.+) -->$", text, re.MULTILINE)
    return tuple(name.strip() for name in line[1].split(separator)) if line else ()


def pages(folder: Path = FOLDER) -> list[Page]:
    """Every page but the index."""
    return [read_page(path) for path in sorted(folder.glob("*.md")) if path.name != "README.md"]


def variants_of(path: Path = BENCHMARK) -> dict[str, dict[str, Any]]:
    """Name of each variant -> the fields that it changes, as the benchmark has them."""
    spec = importlib.util.spec_from_file_location("ablation_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    variants: dict[str, dict[str, Any]] = dict(module.VARIANTS)
    variants |= {name: {"rope_scaling": scaling and scaling["kind"]} for name, scaling in module.STRETCHED.items()}
    return variants


def read_ablation(folder: Path = FOLDER) -> dict[str, Any] | None:
    """The stored measurement; None where there is none. Raises ValueError naming a key that is missing."""
    path = folder / "ablation.json"
    if not path.exists():
        return None
    ablation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key in ("rows", "command", "machine", "versions", "date", "seconds"):
        if key not in ablation:
            raise ValueError(f"{path}: has no {key!r}")
    return ablation


def updated(page: Page, ablation: Mapping[str, Any] | None, changes: Mapping[str, Mapping[str, Any]]) -> str:
    """The page's text with its tables written anew."""
    halves: list[str] = []
    languages: tuple[Language, Language] = ("en", "zh")
    for language, half in zip(languages, page.text.split(CHINESE), strict=True):
        presets, measured = presets_table(page.fields, language), ""
        if ablation is not None and page.variants:
            measured = ablation_table(page.variants, ablation, changes, language)
        halves.append(_filled(_filled(half, "presets", presets), "ablation", measured))
    return CHINESE.join(halves)


def _filled(half: str, kind: str, table: str) -> str:
    start, end = f"<!-- {kind} -->\n", f"<!-- /{kind} -->"
    before, found, rest = half.partition(start)
    return before + start + table + end + rest.partition(end)[2] if found else half


def presets_table(fields: tuple[str, ...], language: Language) -> str:
    """One line a field, one column a preset."""
    words = _WORDS[language]
    names = [name + (words["default"] if name == "qwen3" else "") for name in SHOWN]
    lines = [f"| {words['preset']} | {' | '.join(names)} |", "|---" * (len(SHOWN) + 1) + "|"]
    for field in fields:
        values = [shown(getattr(PRESETS[name](), field), language) for name in SHOWN]
        lines.append(f"| `{field}` | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def ablation_table(
    variants: tuple[str, ...],
    ablation: Mapping[str, Any],
    changes: Mapping[str, Mapping[str, Any]],
    language: Language,
) -> str:
    """The default and the page's variants, in that order, and a sentence on how they were measured. A variant that was not
    measured has dashes."""
    words = _WORDS[language]
    rows = {row["variant"]: row for row in ablation["rows"]}
    lines = [words["head"], "|---|---|---:|---:|---:|---:|---:|"]
    for name in ("default", *variants):
        changed = ", ".join(f"`{field}` {shown(value, language)}" for field, value in changes[name].items())
        cells = [f"`{name}`", changed or words["nothing"], *_measured(name, rows.get(name), words)]
        lines.append(f"| {' | '.join(cells)} |")
    versions = ablation["versions"]
    if isinstance(versions, Mapping):
        versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    about = words["about"].format(**{**ablation, "versions": versions})
    return "\n".join([*lines, "", about, ""])


def _measured(name: str, row: Mapping[str, Any] | None, words: Mapping[str, str]) -> list[str]:
    if row is None:
        return ["–"] * 5
    parameters = f"{row['parameters']:,}" if row["parameters"] is not None else "–"
    bits = f"{row['bits_per_byte']:.4f}" if row["bits_per_byte"] is not None else words["diverged"]
    difference = "–"
    if name != "default" and row["difference"] is not None:
        difference = f"{row['difference']:+.4f}"
        if row["standard_error"] is not None:
            difference += f" ± {row['standard_error']:.4f}"
    return [f"{row['steps']:,}", parameters, str(row["seeds"]), bits, difference]


def shown(value: Any, language: Language) -> str:
    """A field's value as a reader writes it."""
    if value is None or isinstance(value, bool):
        return _WORDS[language][str(value)]
    if isinstance(value, RopeScaling):
        return f"{value.kind}, {value.factor:g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else re.sub(r"e-0", "e-", f"{value:g}")
    return str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is not up to date")
    check = parser.parse_args().check
    try:
        ablation, changes = read_ablation(), variants_of()
        stale = [(page, text) for page in pages() if (text := updated(page, ablation, changes)) != page.text]
    except (ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for page, text in stale:
        print(f"{page.path.name}: {'not up to date' if check else 'written'}")
        if not check:
            page.path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
