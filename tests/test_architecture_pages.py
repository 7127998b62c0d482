"""docs/architecture says of every field what the code and the stored measurement say, in both languages."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from duihua.config import build, override
from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig, RopeScaling
from duihua.stages.configs.pretrain import PretrainConfig, ShapeConfig

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "architecture"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
EVERY_FILE = [*PAGES, FOLDER / "README.md"]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_architecture_pages", ROOT / "tools/make_architecture_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def variants(tool: ModuleType) -> Any:
    """The benchmark's own; it sets a variable for its workers, which must not reach other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        return tool.variants_of()


@pytest.fixture
def measured(variants: dict[str, Any]) -> dict[str, Any]:
    """A made-up measurement in the stored form, with one variant that diverged."""
    rows = [
        {
            "variant": name,
            "seeds": 3,
            "steps": 1100 + number,
            "parameters": 4_720_832 + number,
            "bits_per_byte": 2.0 + number / 1000,
            "difference": number / 1000,
            "standard_error": 0.0012,
        }
        for number, name in enumerate(variants)
    ]
    rows[-1] |= {"seeds": 0, "bits_per_byte": None, "difference": None, "standard_error": None}
    return {
        "rows": rows,
        "command": "python benchmarks/ablation.py --json",
        "machine": "two cores",
        "versions": {"torch": "2.13.0"},
        "date": "2026-01-02",
        "seconds": 40.0,
    }


def table_lines(text: str, kind: str) -> list[list[list[str]]]:
    """The cells of each table of that kind on a page, without head and rule; read apart from the tool."""
    blocks = re.findall(rf"<!-- {kind} -->\n(.*?)<!-- /{kind} -->", text, re.DOTALL)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if line.startswith("|")][
            2:
        ]
        for block in blocks
    ]


def agrees(text: str, rows: list[dict[str, Any]]) -> bool:
    """Whether every ablation table of a page shows what the rows say, to the last digit shown."""
    known = {row["variant"]: row for row in rows}
    tables = table_lines(text, "ablation")
    assert len(tables) == 2 and all(tables), "both languages have a table"
    for name, _, steps, parameters, seeds, bits, difference in (line for lines in tables for line in lines):
        row = known[name.strip("`")]
        if [int(steps.replace(",", "")), int(parameters.replace(",", "")), int(seeds)] != [
            row["steps"],
            row["parameters"],
            row["seeds"],
        ]:
            return False
        if row["bits_per_byte"] is None:
            if bits not in ("diverged", "发散"):
                return False
        elif abs(float(bits) - row["bits_per_byte"]) > 5.1e-5:
            return False
        if name != "`default`" and row["difference"] is not None:
            value, error = (float(part) for part in difference.split(" ± "))
            if abs(value - row["difference"]) > 5.1e-5 or abs(error - row["standard_error"]) > 5.1e-5:
                return False
    return True


def test_every_field_has_a_page_and_stands_in_the_index_with_its_default(tool: ModuleType) -> None:
    index = {
        cells[0].strip("`"): cells[1:]
        for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) >= 3
    }
    fields = dataclasses.fields(DecoderConfig)
    for field in fields:
        page, default, sentence = index[field.name]
        link = re.fullmatch(r"\[(\w+)\]\((\w+\.md)\)", page)
        assert link is not None and field.name in tool.read_page(FOLDER / link[2]).fields, field.name
        assert default == ("–" if field.default is dataclasses.MISSING else tool.shown(field.default, "en")), field.name
        assert " · " in sentence, f"{field.name}: the line is in both languages"
    scaling = (FOLDER / "rope_scaling.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(RopeScaling):
        assert (
            scaling.count(f"| `{field.name}`") + scaling.count(f", `{field.name}`") + scaling.count(f"、`{field.name}`")
            >= 2
        ), f"{field.name} is on the page in both languages"
        default = index[field.name][0]
        assert default == ("–" if field.default is dataclasses.MISSING else tool.shown(field.default, "en")), field.name
    known = {field.name for field in (*fields, *dataclasses.fields(RopeScaling))}
    assert set(index) == known, "the index names no field that is not there"
    assert {name for page in tool.pages() for name in page.fields} <= known


def test_pages_and_benchmark_name_the_same_variants(tool: ModuleType, variants: dict[str, Any]) -> None:
    named = {name for page in tool.pages() for name in page.variants}
    assert named == set(variants) - {"default"}


def test_a_variant_stands_on_the_page_of_each_field_that_it_is_named_after(
    tool: ModuleType, variants: dict[str, Any]
) -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in variants:
        field = re.split("[=,]", name)[0]
        link = re.search(rf"^\| `{field}` \| \[\w+\]\((\w+\.md)\)", index, re.MULTILINE)
        if link is not None:
            assert name in tool.read_page(FOLDER / link[1]).variants, name


def test_tables_are_up_to_date(tool: ModuleType, variants: dict[str, Any]) -> None:
    ablation = tool.read_ablation()
    for page in tool.pages():
        assert tool.updated(page, ablation, variants) == page.text, (
            f"{page.path.name}: run python tools/make_architecture_pages.py"
        )
        if ablation is not None and page.variants:
            assert agrees(page.text, ablation["rows"]), page.path.name


def test_inserted_tables_equal_the_measurement(
    tool: ModuleType, variants: dict[str, Any], measured: dict[str, Any]
) -> None:
    for page in tool.pages():
        text = tool.updated(page, measured, variants)
        if not page.variants:
            assert text == tool.updated(page, None, variants)
            continue
        assert agrees(text, measured["rows"]), page.path.name
        shown = [[line[0].strip("`") for line in lines] for lines in table_lines(text, "ablation")]
        assert shown == [["default", *page.variants]] * 2
        english, chinese = text.split(tool.CHINESE)
        for half in (english, chinese):
            for key in ("command", "machine", "date"):
                assert measured[key] in half
            assert "torch 2.13.0" in half and "40" in half
        again = dataclasses.replace(page, text=text)
        assert tool.updated(again, measured, variants) == text, "a second run changes nothing"
        assert tool.updated(again, None, variants) == tool.updated(page, None, variants), "and it can be taken out"


@pytest.mark.parametrize(
    ("key", "change"), [("bits_per_byte", 0.001), ("difference", -0.001), ("standard_error", 0.001), ("steps", 1)]
)
def test_a_changed_number_is_noticed(
    tool: ModuleType, variants: dict[str, Any], measured: dict[str, Any], key: str, change: float
) -> None:
    page = tool.read_page(FOLDER / "norm.md")
    text = tool.updated(page, measured, variants)
    other = json.loads(json.dumps(measured))
    row = next(row for row in other["rows"] if row["variant"] == "norm=layer")
    row[key] += change
    assert not agrees(text, other["rows"])
    assert tool.updated(dataclasses.replace(page, text=text), other, variants) != text


def test_a_number_edited_on_one_page_half_is_noticed(
    tool: ModuleType, variants: dict[str, Any], measured: dict[str, Any]
) -> None:
    page = tool.read_page(FOLDER / "norm.md")
    text = tool.updated(page, measured, variants)
    digits = f"{next(row for row in measured['rows'] if row['variant'] == 'norm=layer')['bits_per_byte']:.4f}"
    english, chinese = text.split(tool.CHINESE)
    edited = tool.CHINESE.join([english, chinese.replace(digits, "1.0000")])
    assert edited != text
    assert not agrees(edited, measured["rows"])
    assert tool.updated(dataclasses.replace(page, text=edited), measured, variants) == text


def test_a_measurement_without_its_machine_is_refused(
    tool: ModuleType, measured: dict[str, Any], tmp_path: Path
) -> None:
    assert tool.read_ablation(tmp_path) is None
    (tmp_path / "ablation.json").write_text(json.dumps(measured), encoding="utf-8")
    assert tool.read_ablation(tmp_path) == measured
    del measured["machine"]
    (tmp_path / "ablation.json").write_text(json.dumps(measured), encoding="utf-8")
    with pytest.raises(ValueError, match="machine"):
        tool.read_ablation(tmp_path)


def test_a_page_without_markers_in_both_halves_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    text = (FOLDER / "norm.md").read_text(encoding="utf-8")
    english, chinese = text.split(tool.CHINESE)
    path = tmp_path / "norm.md"
    path.write_text(tool.CHINESE.join([english, chinese.replace("<!-- ablation -->", "")]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"norm\.md"):
        tool.read_page(path)


def broken_links(path: Path, text: str) -> list[str]:
    """Relative links of a file that lead nowhere, and code named beside a link that the linked file does not hold."""
    broken = []
    for target, names in re.findall(r"\]\(([^)\s]+)\)(?: ?[(（]((?:`\w+`[,、]? ?)+)[)）])?", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        if not linked.exists():
            broken.append(target)
            continue
        if anchor and f"\n## {anchor}\n" not in linked.read_text(encoding="utf-8").replace("## English", "## english"):
            broken.append(target)
        if linked.suffix == ".py":
            source = linked.read_text(encoding="utf-8")
            broken += [f"{file}: {name}" for name in re.findall(r"`(\w+)`", names) if name not in source]
    return broken


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: path.stem)
def test_links_resolve_and_the_code_named_there_exists(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_noticed() -> None:
    path = FOLDER / "norm.md"
    text = path.read_text(encoding="utf-8")
    assert broken_links(path, text.replace("(norm_place.md)", "(norm_places.md)")) == ["norm_places.md"] * 2
    assert (
        broken_links(path, text.replace("`make_norm`", "`made_norm`"))
        == ["../../src/duihua/nn/norms.py: made_norm"] * 2
    )
    assert broken_links(path, text.replace("(#english)", "(#francais)")) == ["#francais"]


def tried(text: str) -> list[str]:
    """The commands and recipe lines for pre-training that a page tells its reader to try."""
    return re.findall(r"^duihua pretrain .+$|(?<=`)(?:shape: \{.+?\}+|length: \d+)(?=`)", text, re.MULTILINE)


def accepted(line: str) -> tuple[ShapeConfig, PretrainConfig | None]:
    """The shape that such a line makes, and the whole config where it sets more (to build it takes longer). Raises
    ConfigError where a name or a value is not accepted."""
    if line.startswith("duihua"):
        words = shlex.split(line)[2:]
        given = {flag: value for flag, value in zip(words[::2], words[1::2], strict=True) if flag != "--set"}
        given.pop("--input")  # without these two the command does not start
        given.pop("--output")
        sets = [value for flag, value in zip(words[::2], words[1::2], strict=True) if flag == "--set"]
        mapping = override({}, sets + [f"{flag[2:].replace('-', '_')}={value}" for flag, value in given.items()])
    else:
        mapping = yaml.safe_load(line)
    shape = build(ShapeConfig, mapping.pop("shape", {}), "shape")
    return shape, build(PretrainConfig, mapping, "pretrain") if mapping else None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_says_to_try_is_accepted(path: Path) -> None:
    english, chinese = path.read_text(encoding="utf-8").split("\n## 中文\n")
    lines = tried(english)
    assert lines == tried(chinese), "both languages say the same"
    if path.stem != "vocabulary_size":  # which is tried with `duihua tokenizer`
        assert len(lines) >= 2, "a command and a recipe line"
    for line in lines:
        assert accepted(line) != (ShapeConfig(), None), line


def test_a_setting_that_does_not_exist_is_noticed() -> None:
    command, recipe = tried((FOLDER / "norm.md").read_text(encoding="utf-8"))[:2]
    for wrong in (command.replace("--shape.norm ", "--shape.norms "), recipe.replace("layer", "batch")):
        with pytest.raises(ConfigError):
            accepted(wrong)
