"""The page in a real browser (headless Chromium): both languages, stop, reload, input methods, hostile text, keyboard.

Skipped, with the reason, where there is no Chromium or the page is not built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.page, pytest.mark.usefixtures("built_page")]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

ATTACKS = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload=window.pwned=1><animate onbegin=window.pwned=1>",
    "[click](javascript:window.pwned=1)",
    "[click](  JaVaScRiPt:window.pwned=1)",
    "[click](data:text/html,<script>window.pwned=1</script>)",
    "[click](vbscript:x) <javascript:window.pwned=1>",
    "![x](javascript:window.pwned=1) ![x](https://evil.example/pixel.png)",
    '[x](https://ok.example/"onmouseover="window.pwned=1)',
    "```<img src=x onerror=window.pwned=1>\n<img src=x onerror=window.pwned=1>\n```",
    "| <img src=x onerror=window.pwned=1> |\n|---|\n| <iframe srcdoc='<script>parent.pwned=1</script>'></iframe> |",
    "<iframe src='javascript:parent.pwned=1'></iframe><object data='javascript:window.pwned=1'></object>",
    "<a href='javascript:window.pwned=1'>x</a> <math><mtext></mtext><mglyph><style><img src=x onerror=window.pwned=1>",
    "- [ ] <input autofocus onfocus=window.pwned=1>\n- <details open ontoggle=window.pwned=1>",
    "# <style>body{display:none}</style>\n> <base href='https://evil.example/'>",
    "[a]: javascript:window.pwned=1\n[a] <http://ok.example/?<script>window.pwned=1</script>>",
]


@pytest.fixture(scope="module")
def models(scripted: Any) -> dict[str, Any]:
    return {name: scripted(name=name) for name in ("base", "sft", "ppo")}


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    loaders = [lambda model=model: model for model in models.values()]
    with serve(tmp_path_factory.mktemp("store"), *loaders) as running:
        yield running


@pytest.fixture(autouse=True)
def plain_models(models: dict[str, Any]) -> None:
    """Every test begins with models that answer at once."""
    for model in models.values():
        model.delay, model.script = 0.0, lambda text: f"You said: {text.splitlines()[-1]}"


def field(page: Any) -> Any:
    return page.locator("form.composer textarea")


def say(page: Any, text: str) -> None:
    field(page).fill(text)
    field(page).press("Enter")


def replies(page: Any) -> Any:
    return page.get_by_test_id("reply")


def finished(page: Any) -> None:
    expect(page.locator("article[data-role=assistant].last[aria-busy=false]")).to_be_visible()


@pytest.mark.parametrize(
    ("language", "question", "send", "stop"),
    [("en-US", "Hello there", "Send", "Stop"), ("zh-CN", "你好，今天怎么样？", "发送", "停止")],
)
def test_a_message_streams_stops_and_is_found_after_a_reload(
    open_page: Callable[..., Any], models: Any, language: str, question: str, send: str, stop: str
) -> None:
    models["ppo"].delay, models["ppo"].script = 0.02, lambda _: "字 word " * 1000
    page = open_page(language)
    expect(page.locator("html")).to_have_attribute("lang", language if language == "zh-CN" else "en")
    field(page).fill(question)
    page.get_by_role("button", name=send, exact=True).click()
    expect(replies(page)).to_contain_text("字 word 字")  # the beginning is there while the rest is still to come
    early = len(replies(page).inner_text())
    page.wait_for_function("n => document.querySelector('[data-testid=reply]').innerText.length > n", arg=early)
    page.get_by_role("button", name=stop, exact=True).click()
    finished(page)
    kept = replies(page).inner_text()
    assert early < len(kept) < 5000
    assert not models["ppo"].running
    page.reload()
    expect(replies(page)).to_have_text(kept)
    expect(page.locator(".bubble")).to_have_text(question)
    page.goto(page.url.split("#")[0])
    page.get_by_role("link", name=question).first.click()
    expect(replies(page)).to_have_text(kept)


def test_enter_that_belongs_to_an_input_method_does_not_send(open_page: Callable[..., Any]) -> None:
    page = open_page("zh-CN")
    devtools = page.context.new_cdp_session(page)

    def key(kind: str, name: str, code: int) -> None:
        devtools.send("Input.dispatchKeyEvent", {"type": kind, "key": name, "windowsVirtualKeyCode": code})

    # 1. Enter while composing: the browser says isComposing and key code 229.
    key("rawKeyDown", "Process", 229)
    devtools.send("Input.imeSetComposition", {"text": "nihao", "selectionStart": 5, "selectionEnd": 5})
    key("rawKeyDown", "Enter", 13)
    devtools.send("Input.insertText", {"text": "你好"})
    expect(field(page)).to_have_value("你好")
    assert page.locator("article").count() == 0
    # 2. Some input methods: key code 229 without isComposing. 3. Safari: compositionend, then an ordinary Enter at once.
    page.evaluate(
        """() => {
          const field = document.querySelector('form.composer textarea')
          const enter = (code) => field.dispatchEvent(new KeyboardEvent('keydown',
            { key: 'Enter', keyCode: code, which: code, bubbles: true, cancelable: true }))
          enter(229)
          field.dispatchEvent(new CompositionEvent('compositionstart', { bubbles: true }))
          enter(13)
          field.dispatchEvent(new CompositionEvent('compositionend', { data: '你好', bubbles: true }))
          enter(13)
        }"""
    )
    page.wait_for_timeout(60)
    assert page.locator("article").count() == 0
    # Control: the writer's own Enter does send, and Shift+Enter does not.
    field(page).press("Shift+Enter")
    assert page.locator("article").count() == 0
    field(page).press("Enter")
    finished(page)
    expect(page.locator(".bubble")).to_have_text("你好")


def test_hostile_replies_are_shown_and_never_run(open_page: Callable[..., Any], models: Any) -> None:
    models["ppo"].script = lambda _: "\n\n".join(ATTACKS)
    page = open_page()
    page.evaluate("sessionStorage.clear()")
    say(page, "<img src=x onerror='window.pwned = 1'> attack")
    page.get_by_role("button", name="Settings").click()  # a little while, and proof that the page still works
    page.keyboard.press("Escape")
    finished(page)
    assert page.evaluate("window.pwned") is None
    inside = replies(page)
    for tag in ("script", "img", "svg:not([aria-hidden])", "iframe", "object", "style", "base", "details", "math"):
        assert inside.locator(tag).count() == 0, tag
    for link in inside.locator("a").all():
        assert link.get_attribute("href").startswith(("http://", "https://", "mailto:"))
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    attributes = inside.evaluate("e => [...e.querySelectorAll('*')].flatMap(n => n.getAttributeNames())")
    assert not [name for name in attributes if name.startswith("on")]
    expect(inside).to_contain_text("<script>window.pwned = 1</script>")
    expect(inside.locator("input[type=checkbox]")).to_be_disabled()


def test_the_policy_itself_stops_an_inline_script(browser: Any, server: Any) -> None:
    """Control of the test above: even markup that got through would not run."""
    with closing(browser.new_context()) as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(server.address)
        refused = page.evaluate(
            """() => { try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.pwned = 1">');
                       return false } catch { return true } }"""
        )
        assert refused
        page.evaluate(
            """() => { const script = document.createElement('script')
                       script.append(document.createTextNode('window.pwned = 1'))
                       document.body.append(script) }"""
        )
        assert page.evaluate("window.pwned") is None
        assert any("TrustedScript" in text or "Content Security Policy" in text for text in said)


def test_markdown_becomes_nodes_and_settled_blocks_stay(open_page: Callable[..., Any], models: Any) -> None:
    blocks = ["# 标题", "A **bold** and *soft* `code` [link](https://example.org/a).", "1. one\n2. two\n   - deep"]
    blocks += ["| a | b |\n|---|--:|\n| 1 | 2 |", "```python\nprint('<b>')\n```", "last paragraph"]
    models["ppo"].delay, models["ppo"].script = 0.003, lambda _: "\n\n".join(blocks)
    page = open_page()
    say(page, "show")
    expect(replies(page).locator("strong")).to_have_text("bold")
    page.evaluate("document.querySelector('[data-testid=reply] h3').marked = true")
    finished(page)
    assert page.evaluate("document.querySelector('[data-testid=reply] h3').marked") is True  # never drawn again
    inside = replies(page)
    expect(inside.locator("h3")).to_have_text("标题")
    expect(inside.locator("ol > li")).to_have_count(2)
    expect(inside.locator("ol ul li")).to_have_text("deep")
    expect(inside.locator("td").last).to_have_text("2")
    expect(inside.locator("pre code")).to_have_text("print('<b>')")
    streamed = inside.inner_html()
    page.reload()
    finished(page)
    assert inside.inner_html() == streamed  # grown bit by bit or parsed at once: the same nodes


def test_regenerate_and_edit_make_versions_that_one_can_page_through(
    open_page: Callable[..., Any], models: Any
) -> None:
    count = iter(range(100))
    models["ppo"].script = lambda text: f"answer {next(count)} to {text.splitlines()[-1]}"
    page = open_page()
    say(page, "question")
    expect(replies(page)).to_have_text("answer 0 to question")
    finished(page)
    page.get_by_role("button", name="Write again").click()
    expect(replies(page)).to_have_text("answer 1 to question")
    page.get_by_role("button", name="Previous version").click()
    expect(replies(page)).to_have_text("answer 0 to question")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_role("textbox", name="Edit").fill("better question")
    page.get_by_role("button", name="Save and send").click()
    expect(replies(page)).to_have_text("answer 2 to better question")
    finished(page)
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator(".bubble")).to_have_text("question")
    expect(replies(page)).to_have_text("answer 1 to question")
    page.reload()
    expect(replies(page)).to_have_text("answer 1 to question")


def test_history_is_searched_renamed_and_deleted(open_page: Callable[..., Any]) -> None:
    page = open_page()
    say(page, "the first 苹果 subject")
    finished(page)
    page.get_by_role("button", name="New chat").click()
    say(page, "the second subject")
    finished(page)
    page.get_by_role("searchbox").fill("苹果")
    entries = page.get_by_role("navigation").locator("li")
    expect(entries).to_have_count(1)
    entries.first.hover()
    page.get_by_role("button", name="Rename: the first 苹果 subject").click()
    page.keyboard.type("Apples")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Apples")).to_be_visible()
    entries.first.hover()
    page.get_by_role("button", name="Delete: Apples").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Nothing found.")).to_be_visible()
    page.get_by_role("searchbox").fill("")
    expect(page.get_by_role("link", name="the second subject")).to_have_count(1)


def test_models_system_prompt_and_settings_reach_the_model(open_page: Callable[..., Any], models: Any) -> None:
    page = open_page()
    page.get_by_label("Model").select_option("base")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Longest reply").fill("16")
    page.keyboard.press("Escape")
    models["base"].script = lambda _: "x" * 100
    say(page, "hello")
    finished(page)
    expect(replies(page)).to_have_text("x" * 16)
    expect(page.get_by_text("Cut off at the longest reply")).to_be_visible()
    assert models["base"].prompts[-1][0] == {"role": "system", "content": "Be brief."}
    expect(page.get_by_test_id("measured").last).to_contain_text("16 tokens")


def test_the_page_scrolls_along_only_for_a_reader_at_the_end(open_page: Callable[..., Any], models: Any) -> None:
    models["ppo"].delay, models["ppo"].script = 0.002, lambda _: "line\n\n" * 4000
    page = open_page(viewport={"width": 800, "height": 400})
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Longest reply").fill("512")
    page.keyboard.press("Escape")
    say(page, "long")
    scroll = "document.querySelector('.scroll')"
    gap = f"{scroll}.scrollHeight - {scroll}.scrollTop - {scroll}.clientHeight"
    page.wait_for_function(f"() => {scroll}.scrollHeight > 900")
    page.wait_for_function(f"() => {gap} < 48")
    page.mouse.move(400, 150)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"() => {gap} > 200")
    page.wait_for_timeout(250)  # a wheel's turn is drawn over several frames
    place = page.evaluate(f"{scroll}.scrollTop")
    height = page.evaluate(f"{scroll}.scrollHeight")
    page.wait_for_function(f"() => {scroll}.scrollHeight > {height} + 200")
    assert page.evaluate(f"{scroll}.scrollTop") <= place
    page.get_by_role("button", name="To the latest message").click()
    page.wait_for_function(f"() => {gap} < 48")
    page.keyboard.press("Escape")
    finished(page)


def test_the_reply_is_announced_once_at_its_end(open_page: Callable[..., Any], models: Any) -> None:
    models["ppo"].delay, models["ppo"].script = 0.005, lambda _: "one two three four five"
    page = open_page()
    page.evaluate(
        """() => { window.said = []
          const node = document.querySelector('[data-testid=announcer]')
          const watch = new MutationObserver(() => window.said.push(node.textContent))
          watch.observe(node, { childList: true, characterData: true, subtree: true }) }"""
    )
    say(page, "count")
    finished(page)
    page.wait_for_timeout(50)
    assert page.evaluate("window.said") == ["Reply: one two three four five"]


def test_everything_is_reached_by_keyboard(open_page: Callable[..., Any], models: Any) -> None:
    models["ppo"].delay, models["ppo"].script = 0.02, lambda _: "word " * 1000
    page = open_page()
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(replies(page)).to_contain_text("word word")
    page.keyboard.press("Escape")
    finished(page)
    expect(page.get_by_text("Stopped here.")).to_be_visible()
    page.keyboard.press("Control+k")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Control+Shift+O")
    expect(field(page)).to_be_focused()
    expect(page.locator("article")).to_have_count(0)


def test_the_language_switches_at_once_and_is_remembered(open_page: Callable[..., Any]) -> None:
    page = open_page("en-US")
    expect(page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
    expect(page.get_by_text("6.3M parameters")).to_be_visible()
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="今天想聊点什么？")).to_be_visible()
    expect(page.get_by_text("630 万参数")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="新对话")).to_be_visible()


def test_a_model_offers_what_it_learnt_and_says_from_what(open_page: Callable[..., Any], models: Any) -> None:
    page = open_page("en-US")
    expect(page.get_by_role("button", name="What is your name?")).to_be_visible()  # a model that says nothing of itself
    expect(page.get_by_text("learnt from")).to_have_count(0)
    for model in models.values():
        model.offered, model.learnt_from = ("Tell me <b>of</b> tea", "茶呢？"), ("tea-talk", "茶话")
    try:
        page.reload()
        expect(page.get_by_text("has learnt from tea-talk, 茶话")).to_be_visible()
        expect(page.get_by_role("button", name="What is your name?")).to_have_count(0)
        page.get_by_role("button", name="Tell me <b>of</b> tea").click()
        finished(page)
        expect(replies(page).last).to_contain_text("You said: Tell me <b>of</b> tea")
    finally:
        for model in models.values():
            model.offered, model.learnt_from = (), ()


def test_a_phone_shows_the_menu_on_demand_and_nothing_is_cut_off(open_page: Callable[..., Any]) -> None:
    page = open_page("zh-CN", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    say(page, "很长的一句话" * 30 + " averyveryverylongwordwithoutanyspace" * 5)
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    expect(page.get_by_role("searchbox")).not_to_be_visible()
    page.get_by_role("button", name="对话列表").click()
    expect(page.get_by_role("searchbox")).to_be_visible()
    page.get_by_role("button", name="新对话").click()
    expect(page.get_by_role("searchbox")).not_to_be_visible()
    expect(page.get_by_role("heading", name="今天想聊点什么？")).to_be_visible()


def test_a_question_that_could_not_be_sent_is_given_back(open_page: Callable[..., Any]) -> None:
    page = open_page(forgiven="status of 507")
    page.route(
        "**/api/conversations", lambda route: route.fulfill(status=507, json={"error": {"message": "disk full"}})
    )
    field(page).fill("precious words")
    with page.expect_console_message(lambda message: "507" in message.text):
        field(page).press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("disk full")
    expect(field(page)).to_have_value("precious words")


def test_a_key_is_asked_for_once(browser: Any, serve: Callable[..., Any], scripted: Any, tmp_path: Path) -> None:
    with serve(tmp_path, scripted, api_key="secret") as running, closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(running.address)
        page.get_by_placeholder("Key").fill("wrong")
        page.get_by_role("button", name="Open").click()
        page.get_by_placeholder("Key").fill("secret")
        page.get_by_role("button", name="Open").click()
        expect(
            page.get_by_role("dialog")
        ).to_be_hidden()  # what `fill` does not wait for, and a person cannot type through
        say(page, "hello")
        expect(replies(page)).to_have_text("You said: hello")
        page.reload()
        expect(replies(page)).to_have_text("You said: hello")
