"""/v1/translations beside a chat model: answers, and requests that the model cannot answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from duihua.engine.beam_settings import BeamSettings
from duihua.engine.service import EngineBusy
from duihua.engine.translation_model import TranslationModel, model_inputs
from duihua.models.bundle import ModelCard
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.serving.config import ServingConfig
from duihua.serving.models import find_sources, load_model
from duihua.serving.served_translator import ServedTranslator
from duihua.text.tokenizer import Tokenizer

WAYS = {"fr-en": [("fr", "en")], "both": [("zh", "en"), ("en", "zh")]}


@pytest.fixture(scope="module")
def run_folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a chat model and two translators of random weights."""
    run = tmp_path_factory.mktemp("runs") / "run"
    run.mkdir()
    tokenizer = Tokenizer.load(tiny_bundle)
    for number, (name, directions) in enumerate(WAYS.items()):
        inputs = model_inputs(tokenizer, directions)
        shape = TransformerConfig(
            vocabulary_size=inputs.vocabulary_size, width=16, encoder_layers=1, decoder_layers=1, heads=2,
            feed_forward_width=16, most_tokens=40, start_id=inputs.start_id, end_id=inputs.end_id, pad_id=inputs.pad_id,
        )  # fmt: skip
        model = TranslationModel(Transformer(shape).initialise(number), inputs, directions)
        model.save(run / name, ModelCard(title=name, stage="translate"))
    (run / "sft").symlink_to(tiny_bundle)
    return run


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = ServingConfig(slots=2, queue=4)
    loaders = [partial(load_model, source, config) for source in find_sources([run_folder])]
    with serve(tmp_path_factory.mktemp("store"), *loaders) as running:
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

    def slow(*arguments: Any) -> Any:
        inside.set()
        go.wait(10)
        return right(*arguments)

    served._model.translate = slow  # type: ignore[method-assign]
    first = threading.Thread(target=served.translate, args=(["Hello"], ("fr", "en"), BeamSettings(beam=1)))
    first.start()
    assert inside.wait(10)
    with pytest.raises(EngineBusy, match="wait for fr-en already"):
        served.translate(["Hello"], ("fr", "en"), BeamSettings(beam=1))
    go.set()
    first.join()
    assert served.waiting == 0
