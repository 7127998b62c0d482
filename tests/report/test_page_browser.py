"""report.html in a real browser: the switch, the phone's width, text that tries to run, printing without scripts."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from duihua.report.page import write_report

pytestmark = pytest.mark.page
build_fake_run = runpy.run_path(str(Path(__file__).with_name("fake_run.py")))["build_fake_run"]
EVERYTHING = ("tokenizer", "pretrain", "sft", "reward", "ppo", "evaluate", "classify")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    hostile = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>" + "long" * 60
    return write_report(build_fake_run(tmp_path_factory.mktemp("run"), stages=EVERYTHING, hostile=hostile)).as_uri()


def test_language_follows_the_browser_switches_and_is_remembered(browser: Any, report: str) -> None:
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(report)
    title = page.locator("#normal h2")
    assert title.inner_text() == "我的损失正常吗？"
    page.get_by_role("button", name="English").click()
    assert title.inner_text() == "Is my loss normal?"
    page.reload()
    assert title.inner_text() == "Is my loss normal?"
    assert page.evaluate("document.documentElement.lang") == "en"
    context.close()


@pytest.mark.parametrize(("width", "locale"), [(1280, "en-US"), (390, "zh-CN"), (390, "en-US"), (320, "en-US")])
def test_no_width_scrolls_the_page_and_nothing_is_requested_or_run(
    browser: Any, report: str, width: int, locale: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, locale=locale)
    page = context.new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(report)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("window.hacked === undefined")
    assert requests == [report] and errors == []
    # Negative control: the same measure sees a box that is too wide.
    page.evaluate("document.querySelector('main').style.width = '3000px'")
    assert not page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()


@pytest.mark.parametrize(("width", "locale"), [(1280, "en-US"), (390, "en-US"), (390, "zh-CN")])
def test_every_table_of_an_ordinary_run_fits_its_box(browser: Any, tmp_path: Path, width: int, locale: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, locale=locale)
    page = context.new_page()
    page.goto(write_report(build_fake_run(tmp_path, stages=EVERYTHING)).as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    cut_off = """[...document.querySelectorAll('.scroll, .command')].filter(box => box.scrollWidth > box.clientWidth)
                 .map(box => box.closest('section').id)"""
    assert page.evaluate(cut_off) == []
    # One that cannot fit is seen by the same measure, and has the shadow that says so.
    page.evaluate("document.querySelector('#cost table').style.width = '3000px'")
    assert page.evaluate(cut_off) == ["cost"]
    assert "scroll" in page.evaluate("getComputedStyle(document.querySelector('#cost .scroll')).backgroundAttachment")
    context.close()


def test_without_scripts_the_page_reads_in_english(browser: Any, report: str) -> None:
    context = browser.new_context(java_script_enabled=False, locale="zh-CN")
    page = context.new_page()
    page.goto(report)
    assert page.locator("#normal h2").inner_text() == "Is my loss normal?"
    assert not page.locator(".switch").is_visible()
    context.close()
