"""`duihua serve RUN` with the models of a real run: the official client, the page in a real browser, a clean end."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from safetensors.torch import load_file, save_file

from duihua.text.tokenizer import Tokenizer

QUESTIONS = {"en": "What is your name?", "zh": "你好"}


@pytest.fixture(scope="module")
def talkative(tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PPO model with room for a long reply, and unable to end one: a model this small has said all that it has to
    say in the blink of an eye, and nobody could press Stop in time."""
    directory: Path = tmp_path_factory.mktemp("models") / "talkative"
    shutil.copytree(tiny_run.directory / "ppo", directory, ignore=shutil.ignore_patterns("checkpoints", "rollouts"))
    config = json.loads((directory / "config.json").read_bytes())
    (directory / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    tokenizer = Tokenizer.load(directory)
    weights = load_file(directory / "model.safetensors")
    head = weights["lm_head.weight"]
    head[list(tokenizer.stop_ids)] = head[tokenizer.pad_id].clone()  # as unlikely as the token that it has never seen
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def server(tiny_run: Any, talkative: Path) -> Iterator[dict[str, Any]]:
    """What `duihua serve --json` said about itself; it is stopped at the end, and must leave without a word of woe."""
    store = str(talkative.parent / "conversations.sqlite3")
    command = ["serve", str(talkative), str(tiny_run.directory), "--port", "0", "--json", "--store", store]
    started = tiny_run.road.start(command)
    with closing(started):
        said = started.wait_for_output("}\n")
        assert started.process.poll() is None, started.err
        yield json.loads(said)
        started.send(signal.SIGTERM)
        assert started.process.wait(30) == 0, started.err
        assert "Traceback" not in started.err
        assert started.err.rstrip().endswith("Stopped.")


@pytest.fixture(scope="module")
def client(server: dict[str, Any]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server["api"], api_key="unused", max_retries=0) as opened:
        yield opened


def test_a_run_is_served_under_the_names_of_its_models(server: dict[str, Any], client: openai.OpenAI) -> None:
    assert server["models"] == ["talkative", "base", "sft", "ppo"]
    assert server["default_model"] == "ppo"
    assert [model.id for model in client.models.list()] == server["models"]
    assert httpx.get(f"{server['address']}/health").status_code == 200


@pytest.mark.parametrize("model", ["sft", "ppo"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_official_client_streams_a_reply(client: openai.OpenAI, model: str, language: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": QUESTIONS[language]}]}
    asked["temperature"] = 0.0
    whole = client.chat.completions.create(**asked).choices[0]
    chunks = list(client.chat.completions.create(**asked, stream=True))
    pieces = [text for chunk in chunks if chunk.choices and (text := chunk.choices[0].delta.content)]
    assert len(pieces) > 1
    assert "".join(pieces) == whole.message.content
    assert any("\u4e00" <= sign <= "\u9fff" for sign in whole.message.content or "") == (language == "zh")
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert ends == [whole.finish_reason]


def test_a_question_beyond_the_context_is_refused_and_an_unknown_model_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"context is 128"):
        client.chat.completions.create(model="ppo", messages=[{"role": "user", "content": "long " * 500}])
    with pytest.raises(openai.NotFoundError, match=r"Known: talkative, base, sft, ppo"):
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "Hello"}])


# -- the page -----------------------------------------------------------------------------------------------------------


@pytest.mark.page
@pytest.mark.usefixtures("built_page")
@pytest.mark.parametrize(
    ("locale", "question", "words"),
    [
        (
            "en-US",
            QUESTIONS["en"],
            {
                "send": "Send",
                "stop": "Stop",
                "model": "Model",
                "new": "New chat",
                "settings": "Settings",
                "longest": "Longest reply",
            },
        ),
        (
            "zh-CN",
            QUESTIONS["zh"],
            {
                "send": "发送",
                "stop": "停止",
                "model": "模型",
                "new": "新对话",
                "settings": "设置",
                "longest": "回复上限",
            },
        ),
    ],
)
def test_on_the_page_a_reply_streams_stops_and_is_found_after_a_reload(
    browser: Any, server: dict[str, Any], locale: str, question: str, words: dict[str, str]
) -> None:
    from playwright.sync_api import expect

    problems: list[str] = []
    hosts: set[str] = set()
    with closing(browser.new_context(locale=locale, reduced_motion="reduce")) as context:
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.goto(server["address"])
        field = page.locator("form.composer textarea")
        done = page.locator("article[data-role=assistant].last[aria-busy=false]")
        reply = page.get_by_test_id("reply")

        # 1. The run's default model answers to the end.
        field.fill(question)
        field.press("Enter")
        expect(done).to_be_visible()
        answered = reply.inner_text()
        assert answered.strip()

        # 2. Another conversation, with the model that goes on and on: the reply grows, and is stopped.
        page.get_by_role("button", name=words["new"]).click()
        page.get_by_label(words["model"]).select_option("talkative")
        page.get_by_role("button", name=words["settings"]).click()
        page.get_by_label(words["longest"]).fill("2048")
        page.keyboard.press("Escape")
        long_question = f"{question} (2)"
        field.fill(long_question)
        page.get_by_role("button", name=words["send"], exact=True).click()
        stop = page.get_by_role("button", name=words["stop"], exact=True)
        page.wait_for_function("() => document.querySelector('[data-testid=reply]')?.innerText.length > 0")
        early = len(reply.inner_text())
        page.wait_for_function("n => document.querySelector('[data-testid=reply]').innerText.length > n", arg=early)
        stop.click()
        expect(done).to_be_visible()
        kept = reply.inner_text()
        assert len(kept) > early

        # 3. Loaded anew: both are there, word for word.
        page.reload()
        expect(reply).to_have_text(kept)
        expect(page.locator(".bubble")).to_have_text(long_question)
        page.goto(server["address"])
        page.get_by_role("link", name=question, exact=True).click()
        expect(reply).to_have_text(answered)
        page.get_by_role("link", name=long_question, exact=True).click()
        expect(reply).to_have_text(kept)
    assert problems == []
    assert hosts == {server["address"].split("/")[2]}


@pytest.mark.page
def test_the_stopped_reply_was_cut_off_by_the_click(server: dict[str, Any], client: openai.OpenAI) -> None:
    """Control of the test above: left alone, that model goes on to the last token that it may write."""
    asked = [{"role": "user", "content": QUESTIONS["en"]}]
    ended = client.chat.completions.create(model="talkative", messages=asked, max_tokens=600)  # type: ignore[arg-type]
    assert ended.choices[0].finish_reason == "length"
    assert ended.usage is not None
    assert ended.usage.completion_tokens == 600
