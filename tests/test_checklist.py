"""The plugin of the alignment checklist rejects what it should, and its pages are up to date."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
CONFTEST = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("inner_checklist", PATH)
plugin = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = plugin
spec.loader.exec_module(plugin)
def pytest_configure(config):
    plugin.register(config, range(1, ROWS))
"""
MODULE = """
import pytest
from duihua.data.records import normalised

@pytest.mark.checklist(1)
@pytest.mark.mutation("letters are dropped", "duihua.data.records:normalised", lambda right, text: "")
{more}
def test_case_is_dropped():
    assert normalised("A b!") == "ab"
{rest}
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_checklist_page", ROOT / "tools" / "make_checklist_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def inner(pytester: pytest.Pytester, rows: int = 2, more: str = "", rest: str = "") -> pytest.RunResult:
    """A run of pytest with the plugin over one small test file."""
    path = str(ROOT / "tests" / "checklist_plugin.py")
    pytester.makeconftest(CONFTEST.replace("PATH", repr(path)).replace("ROWS", str(rows)))
    pytester.makepyfile(test_inner=MODULE.format(more=more, rest=rest))
    pytester.makeini("[pytest]\ntestpaths = test_inner.py\naddopts = --import-mode=importlib -p no:cacheprovider")
    return pytester.runpytest_inprocess("-m", "checklist")


def test_a_rejected_mutation_holds_the_row_and_is_written_down(pytester: pytest.Pytester) -> None:
    found = inner(pytester)
    found.assert_outcomes(passed=2)
    assert found.ret == 0
    (row,) = json.loads((pytester.path / "checklist.json").read_text(encoding="utf-8"))
    test = "test_inner.py::test_case_is_dropped"
    assert row == {"number": 1, "tests": [test], "mutation": "letters are dropped", "rejected_by": [test]}
    found.stdout.fnmatch_lines(["*alignment checklist: 1 of 1 rows held*"])


def test_a_mutation_that_survives_fails_the_run(pytester: pytest.Pytester) -> None:
    harmless = '@pytest.mark.mutation("nothing", "duihua.data.records:normalised", lambda right, text: right(text))'
    found = inner(pytester, more=harmless)
    found.assert_outcomes(passed=2, failed=1)
    found.stdout.fnmatch_lines(["*the mutation survives: nothing*"])


def test_a_mutation_that_is_broken_itself_fails_the_run(pytester: pytest.Pytester) -> None:
    broken = '@pytest.mark.mutation("broken", "duihua.data.records:normalised", lambda right: 1)'
    inner(pytester, more=broken).assert_outcomes(passed=2, failed=1)


def test_a_whole_run_that_leaves_a_row_open_fails(pytester: pytest.Pytester) -> None:
    found = inner(pytester, rows=3)
    found.assert_outcomes(passed=2)
    assert found.ret == 1
    found.stdout.fnmatch_lines(["*alignment checklist: 1 of 2 rows held*"])


def test_the_pages_are_up_to_date(tool: ModuleType) -> None:
    rows = tool.declared(ROOT / "tests")
    for language, path in tool.PAGES.items():
        said = f"{path.name} is old: run python tools/make_checklist_page.py --declared"
        assert path.read_text(encoding="utf-8") == tool.page(rows, language), said
    assert len(rows) == 30
    for row in rows:
        assert row["tests"] and row["mutation"] and row["rejected_by"], f"row {row['number']} is open"


def test_a_test_that_is_renamed_makes_the_pages_old(tool: ModuleType) -> None:
    rows = tool.declared(ROOT / "tests")
    rows[4]["tests"][0] += "_again"
    assert tool.PAGES["en"].read_text(encoding="utf-8") != tool.page(rows, "en")
