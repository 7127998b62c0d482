"""Votes and corrections on the page in a real browser: given, seen again after a reload, and kept in the store as pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duihua.data.feedback import PARTS, read_feedback
from duihua.errors import DataError

pytestmark = [pytest.mark.page, pytest.mark.usefixtures("built_page")]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

ENGLISH = {"locale": "en-US", "good": "Good reply", "bad": "Bad reply", "correct": "Write a better reply"}
ENGLISH |= {"corrected": "Your better reply", "remove": "Remove your better reply", "again": "Write again"}
ENGLISH |= {
    "save": "Save",
    "cancel": "Cancel",
    "before": "Previous version",
    "say": "Hello there",
    "better": "Hi! And you?",
}
CHINESE = {"locale": "zh-CN", "good": "回复得好", "bad": "回复得不好", "correct": "写一个更好的回复"}
CHINESE |= {"corrected": "你写的更好的回复", "remove": "删除你写的回复", "again": "重新生成"}
CHINESE |= {"save": "保存", "cancel": "取消", "before": "上一版本", "say": "你好呀", "better": "你好！你呢？"}
BOTH = pytest.mark.parametrize("words", [ENGLISH, CHINESE], ids=["en", "zh"])


@pytest.fixture
def model(scripted: Any) -> Any:
    count = iter(range(100))
    return scripted(script=lambda text: f"answer {next(count)}")


@pytest.fixture
def server(serve: Callable[..., Any], model: Any, tmp_path: Path) -> Iterator[Any]:
    with serve(tmp_path, lambda: model) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "conversations.sqlite3"


def say(page: Any, text: str) -> None:
    page.locator("form.composer textarea").fill(text)
    page.locator("form.composer textarea").press("Enter")
    expect(page.locator("article[data-role=assistant].last[aria-busy=false]")).to_be_visible()


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True).last


def judge(page: Any, target: Any) -> None:
    """Click, and wait until the server has it."""
    with page.expect_response("**/judgement"):
        target.click()


def pairs(store: Path) -> list[tuple[str, str, str]]:
    found = read_feedback(store).pairs
    return [(pair.kind, pair.chosen, pair.rejected) for part in PARTS for pair in found[part]]


@BOTH
def test_votes_on_two_versions_and_a_correction_are_kept(
    open_page: Callable[..., Any], server: Any, store: Path, words: dict[str, str]
) -> None:
    page = open_page(words["locale"])
    say(page, words["say"])
    judge(page, button(page, words["bad"]))
    expect(button(page, words["bad"])).to_have_attribute("aria-pressed", "true")
    button(page, words["again"]).click()
    expect(page.get_by_test_id("reply")).to_have_text("answer 1")
    expect(button(page, words["bad"])).to_have_attribute("aria-pressed", "false")  # another version, not judged yet
    judge(page, button(page, words["good"]))
    expect(button(page, words["good"])).to_have_attribute("aria-pressed", "true")
    button(page, words["correct"]).click()
    field = page.get_by_role("textbox", name=words["correct"])
    expect(field).to_be_focused()
    expect(field).to_have_value("answer 1")
    field.fill(words["better"])
    judge(page, page.get_by_role("button", name=words["save"], exact=True))
    expect(page.get_by_test_id("correction")).to_contain_text(words["better"])
    expect(button(page, words["correct"])).to_be_focused()

    page.reload()
    expect(page.get_by_test_id("correction")).to_contain_text(words["corrected"])
    expect(page.get_by_test_id("correction")).to_contain_text(words["better"])
    expect(button(page, words["good"])).to_have_attribute("aria-pressed", "true")
    button(page, words["before"]).click()
    expect(page.get_by_test_id("reply")).to_have_text("answer 0")
    expect(button(page, words["bad"])).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_test_id("correction")).to_have_count(0)
    assert sorted(pairs(store)) == [("correction", words["better"], "answer 1"), ("vote", "answer 1", "answer 0")]


def test_an_unjudged_reply_makes_no_pair_and_a_vote_can_be_taken_back(
    open_page: Callable[..., Any], server: Any, store: Path
) -> None:
    page = open_page()
    say(page, "hello")
    with pytest.raises(DataError, match="no vote and no correction"):
        pairs(store)
    button(page, "Good reply").click()
    button(page, "Bad reply").click()  # before the server has answered: sent in order all the same
    expect(button(page, "Good reply")).to_have_attribute("aria-pressed", "false")
    expect(button(page, "Bad reply")).to_have_attribute("aria-pressed", "true")
    with page.expect_response(lambda answer: '"vote":0' in (answer.request.post_data or "")):
        button(page, "Bad reply").click()
    expect(button(page, "Bad reply")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Write a better reply").click()
    page.get_by_role("textbox", name="Write a better reply").press("Escape")
    expect(page.get_by_role("textbox", name="Write a better reply")).to_have_count(0)
    page.reload()
    expect(page.get_by_test_id("reply")).to_have_text("answer 0")
    expect(page.locator("[aria-pressed=true]")).to_have_count(0)
    with pytest.raises(DataError, match="no vote and no correction"):
        pairs(store)
    button(page, "Write a better reply").click()
    page.get_by_role("textbox", name="Write a better reply").fill("better")
    with page.expect_response("**/judgement"):
        page.get_by_role("textbox", name="Write a better reply").press("Enter")
    expect(page.get_by_test_id("correction")).to_contain_text("better")
    assert pairs(store) == [("correction", "better", "answer 0")]
    judge(page, button(page, "Remove your better reply"))
    expect(page.get_by_test_id("correction")).to_have_count(0)


def test_a_vote_that_the_server_did_not_take_is_taken_back(open_page: Callable[..., Any], server: Any) -> None:
    page = open_page(forgiven="status of 507")
    say(page, "hello")
    page.route("**/judgement", lambda route: route.fulfill(status=507, json={"error": {"message": "disk full"}}))
    with page.expect_console_message(lambda message: "507" in message.text):
        button(page, "Good reply").click()
    expect(page.get_by_role("alert")).to_contain_text("disk full")
    expect(button(page, "Good reply")).to_have_attribute("aria-pressed", "false")


def test_the_buttons_fit_a_phone(open_page: Callable[..., Any], server: Any) -> None:
    page = open_page("zh-CN", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    say(page, "你好")
    button(page, "重新生成").click()
    expect(page.get_by_test_id("reply")).to_have_text("answer 1")
    for name in ("上一版本", "复制", "重新生成", "回复得好", "回复得不好", "写一个更好的回复"):
        box = button(page, name).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390, name
    button(page, "写一个更好的回复").click()
    page.get_by_role("textbox", name="写一个更好的回复").fill("很长的一句话" * 40 + "averyveryverylongword" * 10)
    page.get_by_role("button", name="保存", exact=True).click()
    expect(page.get_by_test_id("correction")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
