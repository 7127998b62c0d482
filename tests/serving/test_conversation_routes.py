"""The page's API: replies that are stored however they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest


@pytest.fixture(scope="module")
def model(scripted: Any) -> Any:
    return scripted()


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve(tmp_path_factory.mktemp("store"), lambda: model) as running:
        yield running


@pytest.fixture
def api(server: Any, model: Any) -> Iterator[httpx.Client]:
    model.delay, model.script = 0.0, lambda text: f"You said: {text.splitlines()[-1]}"
    with httpx.Client(base_url=f"{server.address}/api") as client:
        yield client


def start(api: httpx.Client, content: str, **more: Any) -> tuple[str, str]:
    conversation = api.post("/conversations", json=more).json()["id"]
    message = api.post(f"/conversations/{conversation}/messages", json={"content": content}).json()["id"]
    return conversation, message


def reply(api: httpx.Client, conversation: str, parent: str, **settings: Any) -> list[dict[str, Any]]:
    body = {"parent_id": parent, "model": "scripted", "settings": settings}
    answer = api.post(f"/conversations/{conversation}/replies", json=body)
    assert answer.status_code == 200, answer.text
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]


def test_a_reply_streams_and_is_stored_with_what_was_measured(api: httpx.Client, model: Any) -> None:
    c, question = start(api, "你好", system="请简短。")
    events = reply(api, c, question, temperature=0.5)
    assert [event["type"] for event in events] == ["start", *["delta"] * (len(events) - 2), "done"]
    text = "".join(event.get("text", "") for event in events)
    done = events[-1]["message"]
    assert text == done["content"] == "You said: 你好"
    assert done["details"]["finish_reason"] == "stop"
    assert done["details"]["completion_tokens"] == len("You said: 你好".encode()) + 1
    assert model.prompts[-1] == [{"role": "system", "content": "请简短。"}, {"role": "user", "content": "你好"}]
    stored = api.get(f"/conversations/{c}").json()
    assert stored["messages"][1] == done
    assert stored["leaf_id"] == done["id"]


def test_the_model_sees_only_the_branch_that_is_asked_about(api: httpx.Client, model: Any) -> None:
    c, question = start(api, "first")
    answer = reply(api, c, question)[-1]["message"]
    second = api.post(f"/conversations/{c}/messages", json={"parent_id": answer["id"], "content": "second"}).json()
    other = api.post(f"/conversations/{c}/messages", json={"parent_id": answer["id"], "content": "other"}).json()
    reply(api, c, second["id"])
    assert [m["content"] for m in model.prompts[-1]] == ["first", "You said: first", "second"]
    reply(api, c, other["id"])
    assert [m["content"] for m in model.prompts[-1]] == ["first", "You said: first", "other"]


def test_regenerating_adds_a_version_and_keeps_the_old_one(api: httpx.Client) -> None:
    c, question = start(api, "again")
    first, second = (reply(api, c, question)[-1]["message"] for _ in range(2))
    messages = api.get(f"/conversations/{c}").json()["messages"]
    assert {m["id"] for m in messages if m["parent_id"] == question} == {first["id"], second["id"]}


def test_stopping_stores_exactly_what_was_streamed(api: httpx.Client, model: Any) -> None:
    model.delay, model.script = 0.005, lambda _: "说" * 4000
    c, question = start(api, "go on and on")
    body = {"parent_id": question, "model": "scripted", "settings": {"max_tokens": 20_000}}
    events = []
    with api.stream("POST", f"/conversations/{c}/replies", json=body) as answer:
        for line in answer.iter_lines():
            if line:
                events.append(json.loads(line.removeprefix("data: ")))
            if len(events) == 5 and line:
                live = api.get(f"/conversations/{c}").json()["messages"][1]
                assert live["content"].startswith("说")
                assert api.post(f"/replies/{live['id']}/stop").status_code == 204
    text = "".join(event.get("text", "") for event in events)
    done = events[-1]["message"]
    assert done["details"]["finish_reason"] == "cancelled"
    assert done["content"] == text
    assert 3 <= len(text) < 4000
    assert not model.running


def test_a_page_that_is_closed_in_the_middle_finds_what_was_written(
    api: httpx.Client, model: Any, server: Any, wait_until: Callable[..., None]
) -> None:
    model.delay, model.script = 0.005, lambda _: "abc" * 2000
    c, question = start(api, "hello")
    body = {"parent_id": question, "model": "scripted", "settings": {"max_tokens": 20_000}}
    with httpx.stream("POST", f"{server.address}/api/conversations/{c}/replies", json=body) as answer:
        lines = answer.iter_lines()
        for _ in range(12):
            next(lines)
    wait_until(lambda: not model.running)
    wait_until(lambda: bool(api.get(f"/conversations/{c}").json()["messages"][1]["details"]))
    stored = api.get(f"/conversations/{c}").json()["messages"][1]
    assert stored["content"].startswith("abca")
    assert stored["details"]["finish_reason"] == "cancelled"


def test_deleting_a_conversation_stops_its_reply(
    api: httpx.Client, model: Any, wait_until: Callable[..., None]
) -> None:
    model.delay, model.script = 0.005, lambda _: "abc" * 2000
    c, question = start(api, "hello")
    body = {"parent_id": question, "model": "scripted", "settings": {"max_tokens": 20_000}}
    with api.stream("POST", f"/conversations/{c}/replies", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert len(model.running) == 1
        assert api.delete(f"/conversations/{c}").status_code == 204
        wait_until(lambda: not model.running)
    assert api.get(f"/conversations/{c}").status_code == 404


def test_a_reply_that_fails_says_so_and_stays(api: httpx.Client, model: Any) -> None:
    model.script = lambda _: "half\0"
    c, question = start(api, "hello")
    done = reply(api, c, question)[-1]["message"]
    assert done["content"] == "half"
    assert done["details"]["finish_reason"] == "error"
    assert "fail" in done["details"]["error"]


def test_an_empty_reply_and_its_question_are_not_shown_to_the_model_again(api: httpx.Client, model: Any) -> None:
    model.script = lambda text: "" if text == "silence" else "fine"
    c, question = start(api, "silence")
    empty = reply(api, c, question)[-1]["message"]
    assert empty["content"] == ""
    following = api.post(f"/conversations/{c}/messages", json={"parent_id": empty["id"], "content": "hello?"}).json()
    reply(api, c, following["id"])
    assert [m["content"] for m in model.prompts[-1]] == ["hello?"]


def test_rename_search_settings_and_delete(api: httpx.Client) -> None:
    c, _ = start(api, "find me 在这里")
    assert api.patch(f"/conversations/{c}", json={"title": "New name", "settings": {"top_k": 5}}).status_code == 200
    stored = api.get(f"/conversations/{c}").json()
    assert (stored["title"], stored["settings"]) == ("New name", {"top_k": 5})
    assert [found["id"] for found in api.get("/conversations", params={"search": "在这里"}).json()] == [c]
    assert api.patch(f"/conversations/{c}", json={"settings": {"top_k": "5"}}).status_code == 400
    assert api.patch(f"/conversations/{c}", json={"leaf_id": "none"}).status_code == 404
    assert api.delete(f"/conversations/{c}").status_code == 204
    assert api.get("/conversations", params={"search": "在这里"}).json() == []


def test_replies_answer_users_only(api: httpx.Client) -> None:
    c, question = start(api, "hello")
    answer = reply(api, c, question)[-1]["message"]
    refused = api.post(f"/conversations/{c}/replies", json={"parent_id": answer["id"], "model": "scripted"})
    assert refused.status_code == 400


def test_a_vote_and_a_correction_are_kept_with_the_reply(api: httpx.Client) -> None:
    c, question = start(api, "hello")
    done = reply(api, c, question)[-1]["message"]
    place = f"/conversations/{c}/messages/{done['id']}/judgement"
    judged = api.put(place, json={"vote": -1, "correction": "Hi!"}).json()
    assert (judged["details"]["vote"], judged["details"]["correction"]) == (-1, "Hi!")
    assert judged["details"]["finish_reason"] == done["details"]["finish_reason"], "what was measured stays"
    assert api.get(f"/conversations/{c}").json()["messages"][1] == judged
    assert api.put(place, json={}).json()["details"] == done["details"], "taken back"
    assert api.put(place, json={"vote": 2}).status_code == 400
    assert api.put(f"/conversations/{c}/messages/{question}/judgement", json={"vote": 1}).status_code == 404
