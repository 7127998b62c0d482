"""What goes wrong: malformed requests, clients that leave, full queues, foreign pages, missing keys, failing models."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

HELLO: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def model(scripted: Any) -> Any:
    return scripted()


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve(tmp_path_factory.mktemp("store"), lambda: model, body_limit_kib=64) as running:
        yield running


@pytest.fixture
def post(server: Any) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(base_url=server.address) as client:
        yield lambda body=None, path="/v1/chat/completions", **more: client.post(path, json=body, **more)


def is_openai_error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": False}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1.0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": 7}, "stop"),
        ({"seed": 2**64}, "seed"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content"),
        ({"temprature": 1}, "temprature"),
        ({"model": None}, "model"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"\ud800": 1}, None),
    ],
    ids=lambda value: None,
)
def test_a_wrong_field_is_a_400_that_names_it(server: Any, change: dict[str, Any], param: str | None) -> None:
    body = json.dumps({**HELLO, **change})
    headers = {"Content-Type": "application/json"}
    response = httpx.post(f"{server.address}/v1/chat/completions", content=body, headers=headers)
    error = is_openai_error(response, 400)
    if param:
        assert (error["param"] or "").startswith(param)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a": NaN}', b"[" * 20000, b'{"n": ' + b"9" * 6000 + b"}"],
    ids=["empty", "brace", "list", "null", "string", "bytes", "nan", "deep", "digits"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/api/conversations"])
def test_a_body_that_is_no_json_object_is_a_400(server: Any, path: str, body: bytes) -> None:
    response = httpx.post(f"{server.address}{path}", content=body, headers={"Content-Type": "application/json"})
    is_openai_error(response, 400)


def test_a_right_request_passes_the_same_checks(post: Callable[..., httpx.Response]) -> None:
    whole = {**HELLO, "temperature": 1, "n": 2, "stop": None, "tools": [], "response_format": {"type": "text"}}
    answer = post(whole)
    assert answer.status_code == 200
    assert answer.json()["choices"][1]["message"]["content"] == "You said: hello"


def test_unknown_models_and_paths_are_404(post: Callable[..., httpx.Response]) -> None:
    assert is_openai_error(post({**HELLO, "model": "gpt-4"}), 404)["code"] == "model_not_found"
    is_openai_error(post({}, path="/v1/nothing"), 404)
    is_openai_error(post({}, path="/nothing"), 404)
    is_openai_error(post({}, path="/v1/models"), 405)
    is_openai_error(post({}, path="/api/conversations/none/messages"), 400)
    is_openai_error(post({"content": "x"}, path="/api/conversations/none/messages"), 404)


def test_assets_of_a_page_that_is_not_built_are_404(serve: Callable[..., Any], scripted: Any, tmp_path: Path) -> None:
    page = tmp_path / "page"
    with serve(tmp_path, scripted, page=page) as running:
        url = f"{running.address}/assets/index.js"
        is_openai_error(httpx.get(url), 404)
        assert httpx.get(running.address).status_code == 503
        (page / "assets").mkdir(parents=True)
        (page / "assets" / "index.js").write_text("1")
        assert httpx.get(url).text == "1"  # negative control: built while the server runs, it is served
        is_openai_error(httpx.get(f"{running.address}/assets/other.js"), 404)


def test_bodies_above_the_limit_are_413_with_and_without_a_length(server: Any) -> None:
    big = {**HELLO, "messages": [{"role": "user", "content": "x" * 80_000}]}
    is_openai_error(httpx.post(f"{server.address}/v1/chat/completions", json=big), 413)
    chunks = (json.dumps(big).encode()[i : i + 4096] for i in range(0, 80_000, 4096))
    response = httpx.post(
        f"{server.address}/v1/chat/completions", content=chunks, headers={"Content-Type": "application/json"}
    )
    is_openai_error(response, 413)


def test_a_reader_that_leaves_frees_its_slot(server: Any, model: Any, wait_until: Callable[..., None]) -> None:
    model.delay, model.script = 0.01, lambda _: "x" * 10_000
    try:
        body = {**HELLO, "max_tokens": 10_000, "stream": True}
        with httpx.stream("POST", f"{server.address}/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            for _ in range(6):
                next(lines)
            assert len(model.running) == 1  # the reply is being written while someone reads
        wait_until(lambda: not model.running)
    finally:
        model.delay, model.script = 0.0, lambda text: f"You said: {text.splitlines()[-1]}"


def test_a_client_that_stops_waiting_for_a_whole_reply_frees_its_slot(
    server: Any, model: Any, wait_until: Callable[..., None]
) -> None:
    model.delay, model.script = 0.01, lambda _: "x" * 10_000
    try:
        host, port = server.address.removeprefix("http://").split(":")
        body = json.dumps({**HELLO, "max_tokens": 10_000}).encode()
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            wait_until(lambda: len(model.running) == 1)
        wait_until(lambda: not model.running)
    finally:
        model.delay, model.script = 0.0, lambda text: f"You said: {text.splitlines()[-1]}"


def test_a_full_queue_is_429_with_retry_after(
    serve: Callable[..., Any], scripted: Any, tmp_path: Any, wait_until: Callable[..., None]
) -> None:
    model = scripted(delay=0.01, script=lambda _: "x" * 5000, most=1)
    with serve(tmp_path, lambda: model) as running:
        url = f"{running.address}/v1/chat/completions"
        with httpx.stream("POST", url, json={**HELLO, "max_tokens": 5000, "stream": True}) as first:
            lines = first.iter_lines()
            next(lines)
            refused = httpx.post(url, json=HELLO)
            is_openai_error(refused, 429)
            assert int(refused.headers["Retry-After"]) >= 1
            with pytest.raises(openai.RateLimitError):
                openai.OpenAI(base_url=f"{running.address}/v1", api_key="x", max_retries=0).chat.completions.create(
                    model="scripted", messages=HELLO["messages"]
                )
            # The page's question is kept, and no empty reply is left behind.
            c = httpx.post(f"{running.address}/api/conversations", json={}).json()["id"]
            at = f"{running.address}/api/conversations/{c}"
            message = httpx.post(f"{at}/messages", json={"content": "hello"}).json()
            is_openai_error(httpx.post(f"{at}/replies", json={"parent_id": message["id"], "model": "scripted"}), 429)
            stored = httpx.get(at).json()
            assert [m["role"] for m in stored["messages"]] == ["user"]
            assert stored["leaf_id"] == message["id"]
        wait_until(lambda: not model.running)
        model.script = lambda _: "free again"
        assert httpx.post(url, json=HELLO).status_code == 200


def test_the_deadline_ends_a_reply_with_length(serve: Callable[..., Any], scripted: Any, tmp_path: Any) -> None:
    model = scripted(delay=0.02, script=lambda _: "x" * 5000)
    with serve(tmp_path, lambda: model, deadline_seconds=0.2) as running:
        answer = httpx.post(f"{running.address}/v1/chat/completions", json={**HELLO, "max_tokens": 5000}).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert 0 < len(answer["choices"][0]["message"]["content"]) < 5000
        assert not model.running


def test_a_model_that_fails_in_the_middle_is_an_error_in_the_stream(server: Any, model: Any) -> None:
    model.script = lambda _: "some words\0"
    try:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="x", max_retries=0)
        got = []
        with pytest.raises(openai.APIError, match="script says to fail"):
            for chunk in client.chat.completions.create(**HELLO, stream=True):
                got.append(chunk.choices[0].delta.content or "")
        assert "".join(got) == "some words"
        with pytest.raises(openai.BadRequestError, match="script says to fail"):
            client.chat.completions.create(**HELLO)
        assert not model.running
    finally:
        model.script = lambda text: f"You said: {text.splitlines()[-1]}"


def test_health_is_503_until_the_models_are_loaded(
    serve: Callable[..., Any], scripted: Any, tmp_path: Any, wait_until: Callable[..., None]
) -> None:
    gate = threading.Event()

    def slow() -> Any:
        gate.wait(20)
        return scripted()

    with serve(tmp_path, slow, wait=False) as running:
        assert httpx.get(f"{running.address}/health").status_code == 503
        assert httpx.get(f"{running.address}/api/status").json()["ready"] is False
        is_openai_error(httpx.post(f"{running.address}/v1/chat/completions", json=HELLO), 503)
        gate.set()
        wait_until(lambda: httpx.get(f"{running.address}/health").status_code == 200)


def test_with_a_key_only_its_bearer_gets_in(serve: Callable[..., Any], scripted: Any, tmp_path: Any) -> None:
    with serve(tmp_path, scripted, api_key="钥匙-1") as running:
        for path in ("/v1/models", "/api/status", "/api/conversations", "/metrics"):
            is_openai_error(httpx.get(f"{running.address}{path}"), 401)
            wrong = {"Authorization": "Bearer wrong"}
            is_openai_error(httpx.get(f"{running.address}{path}", headers=wrong), 401)
            right = {"Authorization": "Bearer 钥匙-1".encode()}
            assert httpx.get(f"{running.address}{path}", headers=right).status_code == 200
        assert httpx.get(f"{running.address}/health").status_code == 200
        assert httpx.get(f"{running.address}/").status_code in {200, 503}


def test_foreign_origins_and_rebound_names_are_refused_and_local_ones_served(server: Any) -> None:
    url = f"{server.address}/v1/models"
    is_openai_error(httpx.get(url, headers={"Origin": "https://evil.example"}), 403)
    is_openai_error(httpx.get(url, headers={"Origin": "http://localhost.evil.example"}), 403)
    is_openai_error(httpx.get(url, headers={"Origin": "null"}), 403)
    is_openai_error(httpx.get(url, headers={"Host": "evil.example:8000"}), 403)
    local = httpx.get(url, headers={"Origin": "http://localhost:3000"})
    assert local.status_code == 200
    assert local.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    asked = {"Origin": "http://127.0.0.1:5173", "Access-Control-Request-Method": "POST"}
    assert httpx.options(url, headers=asked).headers["Access-Control-Allow-Origin"] == "http://127.0.0.1:5173"


def test_metrics_count_tokens_and_requests_by_route(server: Any) -> None:
    httpx.post(f"{server.address}/v1/chat/completions", json=HELLO)
    httpx.get(f"{server.address}/api/conversations/some-id-that-must-not-become-a-label")
    text = httpx.get(f"{server.address}/metrics").text
    assert 'duihua_completion_tokens_total{model="scripted"}' in text
    assert 'route="/v1/chat/completions",status="200"' in text
    assert 'duihua_replies_running{model="scripted"} 0.0' in text
    assert "some-id" not in text


def test_nothing_in_the_answers_points_to_another_host(server: Any) -> None:
    for path in ("/docs", "/redoc"):
        assert httpx.get(f"{server.address}{path}").status_code == 404
