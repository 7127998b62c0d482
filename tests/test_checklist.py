"""The plugin of the alignment checklist rejects what it should, and its pages are up to date."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CONFTEST = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("inner_checklist", PATH)
plugin = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = plugin
spec.loader.exec_module(plugin)
def pytest_configure(config):
    plugin.register(config, range(1, ROWS), TOOL)
"""
TOOL = """
import json, pathlib
HERE = pathlib.Path(__file__).parent
def differences(rows):
    said = json.loads((HERE / "page.json").read_text(encoding="utf-8"))
    return [] if said == rows else ["page.md:1 is not what the run found"]
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


def inner(
    pytester: pytest.Pytester,
    rows: int = 2,
    more: str = "",
    rest: str = "",
    page: Any = None,
    chosen: tuple[str, ...] = (),
) -> pytest.RunResult:
    """A run of pytest with the plugin over one small test file. page: the rows as a page says them, None for no page.
    chosen: further arguments."""
    path = str(ROOT / "tests" / "checklist_plugin.py")
    tool = "None"
    if page is not None:
        pytester.makepyfile(inner_page_tool=TOOL)
        (pytester.path / "page.json").write_text(json.dumps(page), encoding="utf-8")
        tool = f"__import__('pathlib').Path({str(pytester.path / 'inner_page_tool.py')!r})"
    pytester.makeconftest(CONFTEST.replace("PATH", repr(path)).replace("ROWS", str(rows)).replace("TOOL", tool))
    pytester.makepyfile(test_inner=MODULE.format(more=more, rest=rest))
    pytester.makeini("[pytest]\ntestpaths = test_inner.py\naddopts = --import-mode=importlib -p no:cacheprovider")
    return pytester.runpytest_inprocess("-m", "checklist", *chosen)


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


HELD = {
    "number": 1, "tests": ["test_inner.py::test_case_is_dropped"], "mutation": "letters are dropped",
    "rejected_by": ["test_inner.py::test_case_is_dropped"],
}  # fmt: skip


def test_a_run_that_agrees_with_the_page_passes(pytester: pytest.Pytester) -> None:
    assert inner(pytester, page=[HELD]).ret == 0


def test_a_run_that_found_another_thing_than_the_page_says_fails(pytester: pytest.Pytester) -> None:
    found = inner(pytester, page=[{**HELD, "mutation": "letters are doubled"}])
    found.assert_outcomes(passed=2)
    assert found.ret == 1
    found.stdout.fnmatch_lines(["*page.md:1 is not what the run found*", "*make_checklist_page.py checklist.json*"])


def test_a_run_of_some_tests_alone_is_not_compared_with_the_page(pytester: pytest.Pytester) -> None:
    """Nor one in which a test was skipped, which holds its row elsewhere."""
    assert inner(pytester, page=[], chosen=("-k", "case")).ret == 0
    skipped = "@pytest.mark.checklist(1)\ndef test_elsewhere():\n    pytest.skip('not here')\n"
    found = inner(pytester, page=[], rest=skipped)
    found.assert_outcomes(passed=2, skipped=1)
    assert found.ret == 0


def test_the_pages_are_up_to_date(tool: ModuleType) -> None:
    """By the marks, without running anything; a run of all rows compares them with what it found (checklist_plugin.py)."""
    rows = tool.declared(ROOT / "tests")
    assert tool.differences(rows) == [], "run python -m pytest -m checklist, then python tools/make_checklist_page.py"
    assert len(rows) == 30
    for row in rows:
        assert row["tests"] and row["mutation"] and row["rejected_by"], f"row {row['number']} is open"


def test_a_test_that_is_renamed_makes_the_pages_old(tool: ModuleType) -> None:
    rows = tool.declared(ROOT / "tests")
    renamed = rows[4]["tests"][0].rpartition("::")[2]
    known = tool.differences(rows)
    rows[4]["tests"][0] += "_again"
    english, chinese = (line for line in tool.differences(rows) if line not in known)
    assert english.startswith("docs/alignment/checklist.md:13 ")
    assert chinese.startswith("docs/alignment/checklist.zh.md:13 ")
    assert f"lacks `{renamed}_again`; has `{renamed}`" in english


def test_a_page_that_is_missing_is_named(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "PAGES", {"en": tmp_path / "docs" / "checklist.md"})
    assert tool.differences(tool.declared(ROOT / "tests")) == ["docs/checklist.md does not exist"]
