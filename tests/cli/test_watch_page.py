"""The live page in a real browser, from the command to the pixels: it draws itself anew, speaks two languages, says when nobody
answers, fits a phone, and asks no other host."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from duihua.cli.main import main
from duihua.report.watch_page import write_content, write_page
from duihua.serving.config import ServingConfig
from duihua.serving.server import listen
from duihua.serving.watch_server import create_watch_app
from duihua.training.progress import write_plan

pytestmark = pytest.mark.page
SHOTS = os.environ.get("DUIHUA_SHOTS", "")


def lines(first: int, last: int) -> str:
    rows = [
        {
            "step": 10 * i, "tokens": 20_480 * i, "loss": 2.0 + 7.0 / (1 + i / 9) + 0.2 * (i * 7 % 5 - 2) / 5,
            "gradient_norm": 0.4 + 0.1 * (i * 3 % 7), "learning_rate": 0.02 * min(1.0, (101 - i) / 40),
            "tokens_per_second": 3900.0 + 20 * (i % 9), "skipped_steps": float(i > 20), "seconds": 5.2 * i,
        }
        for i in range(first, last)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_run(folder: Path, steps: int, sample: str = "Hello! How can I help you today? 你好！") -> Path:
    """A pre-training that is done in part and a PPO stage with a sample before it."""
    alignment = folder / "ppo"
    (alignment / "rollouts").mkdir(parents=True)
    (alignment / "metrics.jsonl").write_text(lines(1, 9))
    os.utime(alignment / "metrics.jsonl", (1, 1))
    rollout = {"samples": [{"prompt": "你好", "text": sample}]}
    (alignment / "rollouts" / "00000.json").write_text(json.dumps(rollout))
    pretrain = folder / "pretrain"
    pretrain.mkdir()
    (pretrain / "metrics.jsonl").write_text(lines(1, steps))
    plan = {"steps": 1000, "ranks": 1, "bytes_per_token": 3.6, "operations_per_token": 2e7}
    write_plan(pretrain, {**plan, "peak_operations_per_second": 2e11})
    return folder


@contextmanager
def served(runs: list[Path], every: float = 0.1) -> Iterator[tuple[str, Any]]:
    config = ServingConfig(port=0)
    taken = listen("127.0.0.1", 0)
    app = create_watch_app(
        lambda stage, axis: write_page(runs, stage, axis, every),
        lambda stage, axis: write_content(runs, stage, axis),
        config,
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[taken])), daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        taken.close()

    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}", stop
    finally:
        stop()


def test_the_page_follows_the_training_and_says_when_nobody_answers(browser: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    run = make_run(tmp_path / "quickstart", 40)
    with served([run]) as (address, stop):
        context = browser.new_context(locale="zh-CN", viewport={"width": 1280, "height": 900})
        page = context.new_page()
        hosts, problems = set(), []
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        expect(page.locator(".place")).to_contain_text("第 390 步，共 1,000 步")
        page.locator("details summary").first.click()
        with open(run / "pretrain" / "metrics.jsonl", "a") as file:
            file.write(lines(40, 61))
        expect(page.locator(".place")).to_contain_text("第 600 步")
        assert page.locator("details").first.evaluate("one => one.open"), "what was opened stays open"
        page.get_by_role("button", name="English").click()
        expect(page.locator(".place")).to_contain_text("Step 600 of 1,000")
        expect(page.locator('[data-figure="utilisation"] b')).to_have_text("40 %")
        page.get_by_role("link", name="PPO").click()
        expect(page.locator(".latest")).to_contain_text("Hello! How can I help you today?")
        assert hosts == {address.split("/")[2]}
        assert problems == []
        expect(page.locator("#lost")).to_be_hidden()
        stop()
        expect(page.locator("#lost")).to_be_visible()
        expect(page.locator(".latest")).to_be_visible()
        context.close()


@pytest.mark.parametrize(("width", "locale"), [(1280, "en-US"), (390, "zh-CN"), (390, "en-US")])
@pytest.mark.parametrize("count", [1, 2])
def test_no_width_scrolls_the_page(browser: Any, tmp_path: Path, width: int, locale: str, count: int) -> None:
    runs = [make_run(tmp_path / name, 30 + 40 * i) for i, name in enumerate(("quickstart", "wide-vocabulary")[:count])]
    with served(runs) as (address, _):
        context = browser.new_context(viewport={"width": width, "height": 900}, locale=locale)
        page = context.new_page()
        page.goto(f"{address}/?axis=minutes")
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("figure.chart").count() >= 3
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/watch-{count}-{width}-{locale}.png", full_page=True)
        page.evaluate("document.querySelector('main').style.minWidth = '3000px'")
        assert not page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the measure sees one"
        context.close()


def test_only_this_machines_own_name_is_answered(tmp_path: Path) -> None:
    import http.client

    run = make_run(tmp_path / "run", 5)
    with served([run]) as (address, _):
        answers = {}
        for name in (address.split("/")[2], "evil.example"):
            connection = http.client.HTTPConnection(address.split("/")[2], timeout=20)
            connection.request("GET", "/content", headers={"Host": name})
            answers[name] = connection.getresponse().status
            connection.close()
        assert list(answers.values()) == [200, 403]


def test_the_command_says_its_address_and_refuses_a_port_that_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", 5)
    taken = listen("127.0.0.1", 0)
    port = str(taken.getsockname()[1])
    assert main(["watch", str(run), "--port", port]) == 2
    assert "another program uses this port" in capsys.readouterr().err
    taken.close()
    assert main(["watch", str(tmp_path / "none"), "--page"]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys
    import urllib.request

    run = make_run(tmp_path / "run", 5)
    command = [sys.executable, "-m", "duihua", "watch", str(run), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while not said.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, process.communicate()
            said += line
        address = json.loads(said)["address"]
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"Duihua" in answer.read()
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert process.returncode == 0
