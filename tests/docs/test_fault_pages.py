"""docs/training/faults.md says what the fault suite holds: the rows of its tests, the families of its families."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "faults"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_fault_pages", ROOT / "tools" / "make_fault_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_what_the_tool_writes_of_the_record(tool: ModuleType, language: str) -> None:
    page = tool.PAGES[language].read_text(encoding="utf-8")
    record = json.loads(tool.RECORD.read_text(encoding="utf-8"))
    assert tool.written(page, record, language) == page
    less = {**record, "survived": {**record["survived"], "kill": {}}}
    assert tool.written(page, less, language) != page  # the control: a fault that nothing survived would show


def test_every_fault_that_a_test_records_has_a_row_and_every_row_a_test(tool: ModuleType) -> None:
    told = set()
    for file in SUITE.glob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        told |= set(re.findall(r'lab\.survived\("([a-z-]+)"', text))
        if "lab.survived(value, name)" in text:
            told |= {"nan", "inf"}
        if '"term" if number' in text:
            told |= {"term", "interrupt"}
    assert told == set(tool.FAULTS)


def test_the_record_is_of_the_families_that_the_suite_has_now(tool: ModuleType) -> None:
    record = json.loads(tool.RECORD.read_text(encoding="utf-8"))
    text = (SUITE / "families.py").read_text(encoding="utf-8")
    names = re.findall(r"\w+", re.findall(r"for made in \(([^)]*)\)", text)[0])
    assert record["families"] == names
    assert all(record["survived"]["kill"][name] >= 30 for name in names)
    assert all(set(record["survived"][fault]) == set(names) for fault in ("term", "resume", "full", "damaged", "data"))
