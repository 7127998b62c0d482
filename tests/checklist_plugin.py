"""The alignment checklist as pytest sees it: which test holds which row, and whether the row's mutations are rejected.

A test says which rows it holds and how the code could be wrong:

    @pytest.mark.checklist(12)
    @pytest.mark.mutation("the penalty has the other sign", "duihua.stages.ppo_math:kl_rewards", turned)
    def test_kl_rewards_sum_to_the_log_ratio_of_the_reply() -> None: ...

Why the mutation stands beside the test and is really applied: a test that has never failed may hold nothing. Each mutation
becomes a test of its own, `test_...[mutation: the penalty has the other sign]`: the same function runs with `kl_rewards`
replaced in every module that holds it, and must fail by an assertion or by an error that a user would see. If it passes,
the mutation survives and the run fails; so it does for any other exception, since then the mutation is what is broken.

`wrong` is called with the right function first: `turned(right, *arguments)`, for a property with its getter. A constant is
replaced by `wrong(right)`. `pytest -m checklist` prints the table and writes checklist.json beside it; a whole
run that leaves a row without a test or without a rejected mutation fails. A run that held every row compares what it wrote
with the pages of docs/alignment, and fails where they say something else.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from duihua.errors import DuihuaError

ROWS = range(1, 31)
FILE = "checklist.json"
PREFIX = "mutation: "
PROPERTY = "checklist"
REJECTIONS = (AssertionError, DuihuaError, pytest.fail.Exception)
"""How a test says no: an assertion, an error that the code itself raises, or `pytest.raises` that met none."""


@dataclass(frozen=True)
class Mutation:
    """One way of being wrong: what, where, and what stands there instead."""

    what: str
    target: str
    wrong: Callable[..., Any]

    def __str__(self) -> str:
        return f"{PREFIX}{self.what}"

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """Replace the target in its own module or class, and wherever else it was imported by name."""
        module_name, _, path = self.target.partition(":")
        owner: Any = importlib.import_module(module_name)
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        right = owner.__dict__[name]
        made = _replacement(right, self.wrong)
        patch.setattr(owner, name, made)
        if outer:
            return
        for module in list(sys.modules.values()):
            names = [key for key, value in list(vars(module).items()) if value is right] if _ours(module) else []
            for key in names:
                patch.setattr(module, key, made)


def _ours(module: Any) -> bool:
    name = str(getattr(module, "__name__", ""))
    return name.startswith(("duihua", "tests.", "test_", "conftest"))


def _replacement(right: Any, wrong: Callable[..., Any]) -> Any:
    if isinstance(right, property):
        return property(lambda instance: wrong(right.fget, instance))
    if not callable(right):
        return wrong(right)

    @functools.wraps(right)
    def made(*arguments: Any, **named: Any) -> Any:
        return wrong(right, *arguments, **named)

    return made


@dataclass
class Row:
    """What a run found out about one row."""

    number: int
    tests: list[str] = field(default_factory=list)
    mutations: list[str] = field(default_factory=list)
    rejected_by: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def note(self, test: str, mutation: str, passed: bool) -> None:
        """Count one test that ran, plain or with a mutation."""
        if not passed:
            self.faults.append(f"{mutation}: survived {test}" if mutation else f"{test} failed")
        elif not mutation:
            self.tests += [test] if test not in self.tests else []
        else:
            self.mutations += [mutation] if mutation not in self.mutations else []
            self.rejected_by += [test] if test not in self.rejected_by else []

    @property
    def held(self) -> bool:
        """Whether some test holds the row and some mutation of it was rejected, and nothing failed."""
        return bool(self.tests and self.rejected_by and not self.faults)

    def to_mapping(self) -> dict[str, Any]:
        """As it stands in checklist.json."""
        return {
            "number": self.number,
            "tests": self.tests,
            "mutation": "; ".join(self.mutations),
            "rejected_by": self.rejected_by,
        }


class Checklist:
    """The hooks. One object a session. page_tool: the script that makes the pages of checklist.json."""

    def __init__(self, config: pytest.Config, rows: range = ROWS, page_tool: Path | None = None) -> None:
        self.config = config
        self.rows = {number: Row(number) for number in rows}
        self.page_tool = page_tool
        self.old_pages: list[str] = []
        """What the pages say otherwise than this run, a line each."""
        self.skipped: set[str] = set()
        """Tests of the checklist that did not run here, for want of what they need: what they hold, this run cannot say."""
        self.ran = False
        self.worker = hasattr(config, "workerinput")
        """Whether this is a process of pytest-xdist that runs tests for another one, which counts them."""

    @pytest.fixture(autouse=True)
    def mutated(self, request: pytest.FixtureRequest) -> Generator[None, None, None]:
        """Applies the mutation of this run of the test, before any other fixture of the test is made."""
        mutation = mutation_of(request.node)
        with pytest.MonkeyPatch.context() as patch:
            if mutation is not None:
                mutation.apply(patch)
            yield

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each mutation is a further run of the test."""
        marks = list(metafunc.definition.iter_markers("mutation"))
        if marks:
            mutations = [None, *(Mutation(*mark.args) for mark in reversed(marks))]
            names = ["as it is", *(str(mutation) for mutation in mutations[1:])]
            metafunc.fixturenames.append("mutation")
            metafunc.parametrize("mutation", mutations, ids=names)

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
        """With a mutation the test has to fail in an orderly way."""
        mutation = mutation_of(pyfuncitem)
        if mutation is None:
            return (yield)
        try:
            yield
        except REJECTIONS:
            return True
        pytest.fail(f"the mutation survives: {mutation.what} ({mutation.target})", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Write the rows into the report, which is all that a worker process sends to the one that counts."""
        report = yield
        numbers = [number for mark in item.iter_markers("checklist") for number in mark.args]
        if numbers and (report.when == "call" or report.failed or report.skipped):
            mutation = mutation_of(item)
            report.user_properties.append((PROPERTY, {"rows": numbers, "mutation": mutation.what if mutation else ""}))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what each row's tests came to."""
        for name, said in report.user_properties:
            if name == PROPERTY and report.skipped and not self.worker:
                self.skipped.add(report.nodeid)
            elif name == PROPERTY and (report.when == "call" or report.failed) and not self.worker:
                self.ran = True
                for number in said["rows"]:
                    self.rows[number].note(report.nodeid.partition("[")[0], said["mutation"], report.passed)

    def _whole(self) -> bool:
        """Whether this run was asked for all tests, so that a row without one is a fault."""
        return self.config.args == [str(path) for path in self.config.getini("testpaths")]

    def _complete(self) -> bool:
        """Whether every test of the checklist was asked for, so that a page that names another one is wrong."""
        fewer = ("keyword", "deselect", "ignore", "ignore_glob", "lf")
        some = any(self.config.getoption(name, default=None) for name in fewer)
        return self._whole() and not some and self.config.getoption("markexpr") in ("", "checklist")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the file; fail a whole run that leaves a row open, and one that the pages do not agree with."""
        alone = self.config.getoption("markexpr") == "checklist"
        everything = self._whole() and not self.config.getoption("keyword")
        if not self.ran or self.config.getoption("collectonly") or not (alone or everything):
            return
        found = [row.to_mapping() for row in self.rows.values()]
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (Path(self.config.rootpath) / FILE).write_text(text + "\n", encoding="utf-8")
        held = all(row.held for row in self.rows.values())
        if everything and session.exitstatus == 0 and not held:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.page_tool is not None and held and not self.skipped and self._complete():
            self.old_pages = _load(self.page_tool).differences(found)
            if self.old_pages and session.exitstatus == 0:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, where the checklist was asked for or a row is open."""
        if not self.ran or not (self.config.getoption("markexpr") == "checklist" or self._whole()):
            return
        open_rows = [row for row in self.rows.values() if not row.held]
        terminalreporter.section(
            f"alignment checklist: {len(self.rows) - len(open_rows)} of {len(self.rows)} rows held"
        )
        shown = list(self.rows.values()) if self.config.getoption("markexpr") == "checklist" else open_rows
        for row in shown:
            state = "held" if row.held else "OPEN"
            what = "; ".join(row.mutations) or "no mutation was rejected"
            terminalreporter.line(f"{row.number:>2}  {state}  {len(row.tests):>2} tests  rejected: {what}")
            for fault in row.faults:
                terminalreporter.line(f"          {fault}")
        for difference in self.old_pages:
            terminalreporter.line(difference, red=True)
        if self.old_pages:
            terminalreporter.line(f"Write them from this run: python tools/make_checklist_page.py {FILE}", red=True)


def mutation_of(item: pytest.Item) -> Mutation | None:
    """The mutation that an item runs with; None for a test as it is."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("mutation") if callspec is not None else None
    return found if isinstance(found, Mutation) else None


def _load(script: Path) -> Any:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def register(config: pytest.Config, rows: range = ROWS, page_tool: Path | None = None) -> None:
    """Called by the conftest: markers and hooks. page_tool: as in `Checklist`."""
    config.addinivalue_line("markers", "checklist(*rows): the test holds these rows of the alignment checklist")
    config.addinivalue_line("markers", "mutation(what, target, wrong): a way of being wrong that the test must reject")
    config.pluginmanager.register(Checklist(config, rows, page_tool), "alignment-checklist")
