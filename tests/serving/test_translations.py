"""/v1/translations beside a chat model: answers, and requests that the model cannot answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from duihua.engine.beam_settings import BeamSettings
from duihua.engine.service import EngineBusy
from duihua.engine.translation_model import TranslationModel
from duihua.serving.models import find_sources
from duihua.serving.served_translator import ServedTranslator


@pytest.fixture(scope="module")
def run_folder(translating_run: Path) -> Path:
    return translating_run


@pytest.fixture(scope="module")
def server(serve_run: Any, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve_run(run_folder, tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def client(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address) as client:
        yield client


def test_answers_are_those_of_the_bundle_and_keep_their_places(client: httpx.Client, run_folder: Path) -> None:
    texts = ["Hello you", "  ", "你好"]
    answer = client.post("/v1/translations", json={"model": "fr-en", "input": texts, "beam": 3, "n": 2})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    settings = BeamSettings(beam=3, n_best=2, stopping="estimate")
    expected = TranslationModel.load(run_folder / "fr-en").translate(texts, ("fr", "en"), settings)
    assert [each["text"] for each in body["data"]] == [found[0].text for found in expected]
    assert [len(each["translations"]) for each in body["data"]] == [2, 1, 2]
    assert body["data"][0]["translations"][0]["score"] == pytest.approx(expected[0][0].score, rel=1e-4)
    assert body["data"][1]["text"] == ""
    assert (body["source"], body["target"], body["model"]) == ("fr", "en", "fr-en")
    one = client.post("/v1/translations", json={"model": "fr-en", "input": "Hello you", "beam": 3}).json()
    assert one["data"][0]["text"] == expected[0][0].text


def test_a_model_of_two_directions_wants_to_know_which(client: httpx.Client) -> None:
    def ask(**languages: str) -> httpx.Response:
        return client.post("/v1/translations", json={"model": "both", "input": "你好", **languages})

    assert ask().status_code == 400 and "several ways" in ask().text
    assert ask(target="en").json()["source"] == "zh"
    refused = ask(source="fr")
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "unknown_direction"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "fr-en", "input": ["ok", "long " * 200]}, 400, "input.1"),
        ({"model": "fr-en", "input": "a", "n": 6}, 400, "n"),
        ({"model": "fr-en", "input": "a", "beam": 99}, 400, "beam"),
        ({"model": "fr-en", "input": []}, 400, None),
        ({"model": "fr-en", "input": "a", "source": "French!"}, 400, "source"),
        ({"model": "fr-en", "input": "a", "strange": 1}, 400, "strange"),
        ({"model": "sft", "input": "a"}, 400, "model"),
        ({"model": "nothing", "input": "a"}, 404, "model"),
    ],
)
def test_requests_that_cannot_be_answered(client: httpx.Client, body: dict[str, Any], status: int, param: str) -> None:
    answer = client.post("/v1/translations", json=body)
    assert answer.status_code == status, answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param


def test_a_translator_is_listed_with_its_directions_and_does_not_chat(client: httpx.Client) -> None:
    listed = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
    assert listed["both"]["directions"] == [["zh", "en"], ["en", "zh"]]
    assert client.get("/v1/models/fr-en").json()["task"] == "translation"
    assert [each["id"] for each in client.get("/api/status").json()["translators"]] == ["both", "fr-en"]
    chat = client.post("/v1/chat/completions", json={"model": "fr-en", "messages": [{"role": "user", "content": "a"}]})
    assert chat.status_code == 400 and chat.json()["error"]["code"] == "model_is_a_translator"


def test_too_many_that_wait_are_turned_away(run_folder: Path) -> None:
    served = ServedTranslator("fr-en", TranslationModel.load(run_folder / "fr-en"), most_waiting=0)
    inside, go = threading.Event(), threading.Event()
    right = served._model.translate

    def slow(*arguments: Any, **settings: Any) -> Any:
        inside.set()
        go.wait(10)
        return right(*arguments, **settings)

    served._model.translate = slow  # type: ignore[method-assign]
    first = threading.Thread(target=served.translate, args=(["Hello"], ("fr", "en"), BeamSettings(beam=1)))
    first.start()
    assert inside.wait(10)
    with pytest.raises(EngineBusy, match="wait for fr-en already"):
        served.translate(["Hello"], ("fr", "en"), BeamSettings(beam=1))
    go.set()
    first.join()
    assert served.turns.waiting == 0


def endless(served: ServedTranslator, steps: list[int]) -> None:
    """Let the served network never end a sentence by itself, so slowly that only a request to stop ends a search soon."""
    network = served._model.network
    right = network.step

    def step(ids: Any, state: Any) -> Any:
        steps.append(len(ids))
        time.sleep(0.02)
        logits = right(ids, state)
        logits[:, network.config.end_id] = -1e9
        return logits

    network.step = step  # type: ignore[method-assign]


def test_a_search_ends_at_the_next_token_when_its_client_has_gone(
    serve: Callable[..., Any], run_folder: Path, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """16 batches of 8 sentences; one client hangs up while it waits for its turn, the other during its first batches."""
    steps: list[int] = []
    served = ServedTranslator("fr-en", TranslationModel.load(run_folder / "fr-en"), most_waiting=4)
    endless(served, steps)
    asked = {"model": "fr-en", "input": ["Hello you"] * 128, "beam": 16}
    enough = threading.Event()
    with serve(tmp_path, lambda: served) as running:
        first = threading.Thread(target=ask_and_leave, args=(running.address, asked, enough.is_set))
        first.start()
        wait_until(lambda: bool(steps))
        second = threading.Thread(
            target=ask_and_leave, args=(running.address, asked, lambda: served.turns.waiting == 2)
        )
        second.start()
        second.join(20)
        wait_until(lambda: served.turns.waiting == 1)
        enough.set()
        wait_until(lambda: served.turns.waiting == 0)
        first.join(20)
        made = len(steps)
        with httpx.Client(base_url=running.address) as client:  # control: who waits gets the whole search
            answer = client.post(
                "/v1/translations", json={"model": "fr-en", "input": "Hello you", "beam": 16}, timeout=60
            )
        assert answer.status_code == 200
        whole = len(steps) - made
        assert whole > 5 and made < 16 * whole
    assert all(rows == 16 for rows in steps[made:]) and steps[0] == 8 * 16


def ask_and_leave(address: str, body: dict[str, Any], leave: Callable[[], bool]) -> None:
    """Post, and hang up as soon as `leave` holds."""
    host, port = address.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/translations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        end = time.monotonic() + 20
        while not leave() and time.monotonic() < end:
            time.sleep(0.005)


def test_a_translator_of_a_run_is_called_after_the_run(translating_run: Path, tmp_path: Path) -> None:
    (tmp_path / "my-fr-en").mkdir()
    (tmp_path / "my-fr-en" / "translate").symlink_to(translating_run / "fr-en")
    assert [source.name for source in find_sources([tmp_path / "my-fr-en"])] == ["my-fr-en"]
    assert sorted(source.name for source in find_sources([translating_run])) == ["both", "fr-en", "sft"]
