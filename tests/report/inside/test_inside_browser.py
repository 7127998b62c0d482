"""inside.html in a real browser: choosing, pointing, languages, a phone's width, text that tries to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from duihua.models.bundle import load_bundle
from duihua.report.inside.page import served_page

pytestmark = pytest.mark.page
TEXT = "I <script>hacked=1</script><img src=x onerror=hacked=1>"


@pytest.fixture(scope="module")
def address(models: Path) -> str:
    bundle = load_bundle(models / "sft")
    file = models / "inside.html"
    file.write_text(served_page("sft", bundle.policy, bundle.tokenizer, TEXT, False), encoding="utf-8")
    return file.as_uri()


def test_choosing_a_head_and_pointing_at_a_token_change_what_is_shown(browser: Any, address: str) -> None:
    page = browser.new_page(locale="en-US")
    page.goto(address)
    readout = page.locator("#attention .readout")
    page.locator("#attention select.layer").select_option(value="0")
    page.locator("#attention select.head").select_option(index=2)  # after the mean and head 1
    assert page.locator("#walk .readout").inner_text() == "Layer 1, head 2"
    page.locator("#attention .strip button").nth(1).hover()
    first = readout.inner_text()
    page.locator("#attention .strip button").nth(4).focus()  # the keyboard's way
    assert readout.inner_text() != first
    assert "looks at" in first
    assert page.locator("#walk figure").count() == 12
    assert page.locator("#lens tbody tr").count() == 3
    page.get_by_role("button", name="中文").click()
    assert page.locator("#walk .readout").inner_text() == "第 1 层，第 2 头"
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_no_width_scrolls_the_page_and_nothing_is_requested_or_run(browser: Any, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.hacked") is None
    assert requests == [address]
    assert errors == []
    page.close()
