"""The page's translation view in a real browser: from a typed sentence to the model's own translation, and what goes wrong.

The translators have random weights; what they write is compared with what the same bundle writes when asked in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duihua.engine.beam_settings import BeamSettings
from duihua.engine.translation_model import TranslationModel

pytestmark = [pytest.mark.page, pytest.mark.usefixtures("built_page")]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

ENGLISH = {"locale": "en-US", "translate": "Translate", "direction": "Direction", "way": "Chinese → English"}
ENGLISH |= {"back": "English → Chinese", "text": "Text to translate", "written": "Translation of the text"}
ENGLISH |= {"turn": "Swap", "chat": "Chat", "offline": "The server does not answer"}
CHINESE = {"locale": "zh-CN", "translate": "翻译", "direction": "方向", "way": "中文 → 英语"}
CHINESE |= {"back": "英语 → 中文", "text": "要翻译的文字", "written": "译文", "turn": "互换", "chat": "对话"}
CHINESE |= {"offline": "服务器没有响应"}
BOTH = pytest.mark.parametrize("words", [ENGLISH, CHINESE], ids=["en", "zh"])
SENTENCES = ["你好", "今天天气很好。"]


@pytest.fixture(scope="module")
def server(serve_run: Any, translating_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve_run(translating_run, tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="module")
def expected(translating_run: Path) -> str:
    """The translations of SENTENCES, a line each."""
    settings = BeamSettings(beam=5, stopping="estimate")
    answers = TranslationModel.load(translating_run / "both").translate(SENTENCES, ("zh", "en"), settings)
    found = [answer[0].text for answer in answers]
    assert all(found) and found[0] != found[1], "random weights that write nothing prove nothing"
    return "\n".join(found)


def open_view(open_page: Callable[..., Any], words: dict[str, str], **options: Any) -> Any:
    """The view, with the direction chosen."""
    page = open_page(words["locale"], **options)
    page.get_by_role("button", name=words["translate"], exact=True).click()
    page.get_by_label(words["direction"], exact=True).select_option(label=words["way"])
    return page


def ask(page: Any, words: dict[str, str], text: str) -> None:
    page.get_by_label(words["text"], exact=True).fill(text)
    page.get_by_role("button", name=words["translate"], exact=True).click()


def translated(page: Any, words: dict[str, str], text: str, timeout: float = 20_000) -> None:
    """Holds where the translation is there and nothing is complained of."""
    expect(page.get_by_label(words["written"], exact=True)).to_have_value(text, timeout=timeout)
    expect(page.get_by_role("alert")).to_have_count(0, timeout=timeout)


@BOTH
def test_a_typed_sentence_is_translated_line_by_line_and_turned_round(
    open_page: Callable[..., Any], expected: str, words: dict[str, str]
) -> None:
    page = open_view(open_page, words)
    source = page.get_by_label(words["text"], exact=True)
    source.press_sequentially("你好")
    source.press("Control+Enter")
    translated(page, words, expected.partition("\n")[0])
    ask(page, words, "\n".join(SENTENCES))
    translated(page, words, expected)
    expect(source).to_have_attribute("lang", "zh")
    page.get_by_role("button", name=words["turn"]).click()
    expect(page.get_by_label(words["direction"], exact=True).locator("option:checked")).to_have_text(words["back"])
    expect(source).to_have_value(expected)
    page.get_by_role("button", name=words["chat"], exact=True).click()
    expect(page.locator("form.composer textarea")).to_be_visible()


@BOTH
def test_an_error_of_the_server_is_shown_in_place_of_a_translation(
    open_page: Callable[..., Any], expected: str, words: dict[str, str]
) -> None:
    page = open_view(open_page, words, forgiven="Failed to load resource")
    alert = page.get_by_role("alert")
    ask(page, words, "\n".join(SENTENCES))
    translated(page, words, expected)
    # The server itself refuses a text that is too long; nothing of the last translation stays.
    ask(page, words, "好" * 200)
    expect(alert).to_contain_text("40")
    expect(page.get_by_label(words["written"], exact=True)).to_have_value("")
    # An error from further down, and no answer at all.
    page.route("**/v1/translations", lambda r: r.fulfill(status=500, json={"error": {"message": "out of memory"}}))
    ask(page, words, "\n".join(SENTENCES))
    expect(alert).to_have_text("out of memory")
    with pytest.raises(AssertionError):  # the check of the tests here sees it
        translated(page, words, expected, timeout=200)
    page.unroute("**/v1/translations")
    page.route("**/v1/translations", lambda r: r.abort())
    ask(page, words, "\n".join(SENTENCES))
    expect(alert).to_contain_text(words["offline"])
    # Control: with the server back, the same words are translated, and the alert is gone.
    page.unroute("**/v1/translations")
    ask(page, words, "\n".join(SENTENCES))
    translated(page, words, expected)


@BOTH
def test_on_a_phone_nothing_is_cut_off(open_page: Callable[..., Any], words: dict[str, str]) -> None:
    page = open_view(open_page, words, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for box in page.locator(".translate select, .translate textarea, .translate button").all():
        place = box.bounding_box()
        assert place["x"] >= 0 and place["x"] + place["width"] <= 390
