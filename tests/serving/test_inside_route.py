"""GET /inside: the page of a served model, behind the same guards as the API, and without a trace in the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from duihua.report.inside.page import served_page, served_translator_page
from duihua.serving.app import create_app
from duihua.serving.config import ServingConfig
from duihua.serving.conversations import ConversationStore
from duihua.serving.models import Models, find_sources, load_model
from duihua.serving.services import INSIDE_PLACES, InsideWriter

Client = Callable[..., TestClient]


@pytest.fixture
def client(tiny_bundle: Path, tmp_path: Path) -> Iterator[Client]:
    """Makes a client of an app with the tiny model, or with the models of `folder`."""
    opened: list[TestClient] = []

    def make(inside: InsideWriter | None = served_page, folder: Path = tiny_bundle, **settings: str) -> TestClient:
        config = ServingConfig(store=str(tmp_path / "conversations.sqlite3"), **settings)
        models = Models([partial(load_model, source, config) for source in find_sources([folder])])
        models.start()
        while models.state == "loading":
            time.sleep(0.01)
        store = ConversationStore(config.store_url)
        app = create_app(models, store, config, inside=inside, inside_translator=inside and served_translator_page)
        opened.append(TestClient(app, base_url="http://127.0.0.1"))
        opened[-1].__enter__()
        return opened[-1]

    yield make
    for one in opened:
        one.__exit__(None, None, None)


@contextmanager
def hooks_counted(client: TestClient) -> Iterator[list[int]]:
    """How many hooks the served network has, before and after."""
    network = client.app.state.services.models.default._chat.network  # type: ignore[attr-defined]
    counts = [sum(len(module._forward_hooks) for module in network.modules())]
    yield counts
    counts.append(sum(len(module._forward_hooks) for module in network.modules()))


def test_page_shows_the_text_and_leaves_the_served_network_alone(client: Client) -> None:
    served = client()
    with hooks_counted(served) as counts:
        answer = served.get("/inside", params={"model": "sft", "text": "你好<script>"})
    assert counts == [0, 0]
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "你好&lt;script&gt;" in answer.text
    assert '<form class="ask"' in answer.text
    assert served.get("/inside").status_code == 200  # a default model and text


def test_of_a_translator_the_page_shows_cross_attention_in_the_direction_asked_for(
    client: Client, translating_run: Path
) -> None:
    served = client(folder=translating_run)
    answer = served.get("/inside", params={"model": "both", "text": "你好<b>", "source": "zh", "target": "en"})
    assert answer.status_code == 200, answer.text
    assert 'id="cross"' in answer.text and 'id="lens"' not in answer.text
    assert "你好&lt;b&gt;" in answer.text and "你好<b>" not in answer.text
    assert '<input type="hidden" name="source" value="zh">' in answer.text
    assert (
        "我爱你" in served.get("/inside?model=both").text
    )  # its first direction, and the usual sentence of that language
    wrong = served.get("/inside?model=both&source=en&target=fr")
    assert wrong.status_code == 400 and wrong.json()["error"]["message"]
    assert 'id="lens"' in served.get("/inside").text  # the chat model is the default
    assert client(folder=translating_run / "fr-en").get("/inside?text=hello").status_code == 200
    assert client(inside=None, folder=translating_run).get("/inside?model=both").status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [("text=", 400), (f"text={'a%20' * 300}", 400), (f"text={'a' * 3000}", 400), ("model=nobody", 404)],
)
def test_wrong_questions_get_an_answer_of_the_api(client: Client, query: str, status: int) -> None:
    answer = client().get(f"/inside?{query}")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_with_a_key_the_page_asks_for_it_and_has_no_field(client: Client) -> None:
    served = client(api_key="secret")
    assert served.get("/inside").status_code == 401
    answer = served.get("/inside", headers={"Authorization": "Bearer secret"})
    assert answer.status_code == 200
    assert '<form class="ask"' not in answer.text  # a form cannot carry the key


def test_foreign_pages_are_refused_and_a_server_without_a_writer_says_so(client: Client) -> None:
    assert client().get("/inside", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client(inside=None).get("/inside").status_code == 404


def test_only_so_many_wait_for_a_page(client: Client) -> None:
    served = client()
    places = served.app.state.services.inside_places  # type: ignore[attr-defined]
    taken = 0
    while places.acquire(blocking=False):
        taken += 1
    assert taken == INSIDE_PLACES
    assert served.get("/inside").status_code == 429
    places.release()
    assert served.get("/inside").status_code == 200
    assert served.get("/inside").status_code == 200  # a page that is made gives its place back
