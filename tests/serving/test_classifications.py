"""/v1/classifications beside a chat model: answers, and requests that are not of the model's form."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from duihua.engine.classifier_model import ClassifierModel, Question
from duihua.engine.service import EngineBusy
from duihua.models.bundle import ModelCard, load_bundle
from duihua.models.classifier import Classifier
from duihua.models.task_bundle import TaskSettings, save_task_bundle
from duihua.serving.served_classifier import ServedClassifier
from duihua.text.task_inputs import Task

TASKS: dict[str, tuple[Task, tuple[str, ...]]] = {
    "texts": ("classification", ("bad", "good")),
    "pairs": ("similarity", ("no", "yes")),
    "choices": ("multiple_choice", ()),
}


@pytest.fixture(scope="module")
def run_folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a chat model and three classifiers."""
    run = tmp_path_factory.mktemp("runs") / "run"
    run.mkdir()
    for name, (task, classes) in TASKS.items():
        bundle = load_bundle(tiny_bundle)
        classifier = Classifier(bundle.policy, task, len(classes)).initialise(0)
        settings = TaskSettings(task, classes, 64)
        save_task_bundle(run / name, classifier, bundle.tokenizer, ModelCard(title=name, stage="classify"), settings)
    (run / "sft").symlink_to(tiny_bundle)
    return run


@pytest.fixture(scope="module")
def server(serve_run: Any, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve_run(run_folder, tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def post(server: Any) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(base_url=server.address) as client:
        yield lambda body: client.post("/v1/classifications", json=body)


def test_answers_are_those_of_the_bundle(post: Callable[..., httpx.Response], run_folder: Path) -> None:
    asked = {
        "texts": ["Hello", "你好"],
        "pairs": [["Hello", "how are you"], ["你好", "谢谢"]],
        "choices": [{"context": "Hello", "options": ["you", "天气", "a"]}],
    }
    for name, given in asked.items():
        answer = post({"model": name, "input": given})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        model = ClassifierModel.load(run_folder / name)
        questions = [
            Question((g["context"],), tuple(g["options"])) if isinstance(g, dict)
            else Question((g,) if isinstance(g, str) else tuple(g))
            for g in given
        ]  # fmt: skip
        expected = model.predict([model.encode(question) for question in questions])
        assert [found["label"] for found in body["data"]] == [found.label for found in expected]
        for found, wanted in zip(body["data"], expected, strict=True):
            assert found["probabilities"] == pytest.approx(wanted.probabilities)
            assert found["cut_tokens"] == 0
        assert [found["index"] for found in body["data"]] == list(range(len(given)))
        assert body["usage"]["prompt_tokens"] == sum(found.tokens for found in expected)
        assert (body["object"], body["model"], body["task"]) == ("list", name, TASKS[name][0])
    single = post({"model": "texts", "input": "Hello"}).json()
    assert len(single["data"]) == 1


def test_long_texts_are_cut_and_say_so(post: Callable[..., httpx.Response]) -> None:
    (found,) = post({"model": "texts", "input": "zq" * 100}).json()["data"]
    assert found["cut_tokens"] == 200 - 62


def test_classifiers_are_listed_and_write_no_text(server: Any) -> None:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        listed = {model.id: model.to_dict() for model in client.models.list()}
        assert set(listed) == {"sft", *TASKS}
        assert listed["texts"]["classes"] == ["bad", "good"]
        assert "classes" not in listed["sft"]
        assert client.models.retrieve("pairs").to_dict()["task"] == "similarity"
        with pytest.raises(openai.BadRequestError, match="classifies and writes no text"):
            client.chat.completions.create(model="texts", messages=[{"role": "user", "content": "Hello"}])
    status = httpx.get(f"{server.address}/api/status").json()
    assert [model["id"] for model in status["models"]] == ["sft"]  # the page offers what one can talk to
    assert status["default_model"] == "sft"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "sft", "input": "x"}, 400, "model_is_no_classifier"),
        ({"model": "none", "input": "x"}, 404, "model_not_found"),
        ({"model": "texts", "input": [["a", "b"]]}, 400, "wrong_input_form"),
        ({"model": "texts", "input": [{"context": "a", "options": ["b", "c"]}]}, 400, "wrong_input_form"),
        ({"model": "pairs", "input": ["a", "b"]}, 400, "wrong_input_form"),
        ({"model": "pairs", "input": [["a", "b", "c"]]}, 400, "wrong_input_form"),
        ({"model": "choices", "input": "a"}, 400, "wrong_input_form"),
        ({"model": "choices", "input": [{"context": "a", "options": ["b"]}]}, 400, None),
        ({"model": "texts", "input": ["a", " "]}, 400, "empty_input"),
        ({"model": "texts", "input": []}, 400, None),
        ({"model": "texts", "input": ["a"] * 513}, 400, None),
        ({"model": "texts", "input": [3]}, 400, None),
        ({"model": "texts"}, 400, "missing"),
        ({"model": "texts", "input": "a", "inputs": "b"}, 400, "extra_forbidden"),
    ],
    ids=lambda value: None,
)
def test_a_wrong_request_is_an_openai_error(
    post: Callable[..., httpx.Response], body: dict[str, Any], status: int, code: str | None
) -> None:
    answer = post(body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code


def test_half_a_surrogate_pair_is_refused(server: Any) -> None:
    raw = b'{"model": "texts", "input": ["\\ud800"]}'
    answer = httpx.post(f"{server.address}/v1/classifications", content=raw)
    assert answer.status_code == 400


def test_more_requests_than_may_wait_are_told_to_come_again(run_folder: Path) -> None:
    model = ClassifierModel.load(run_folder / "texts")
    served = ServedClassifier("texts", model, most_waiting=1)
    held, going = threading.Event(), threading.Semaphore(0)
    right = model.predict

    def slow(inputs: Any) -> Any:
        going.release()
        held.wait(20)
        return right(inputs)

    model.predict = slow  # type: ignore[method-assign]
    threads = [threading.Thread(target=served.classify, args=([Question(("Hello",))],)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert going.acquire(timeout=20)
    try:
        with pytest.raises(EngineBusy):
            for _ in range(100):  # until the second thread waits too
                threading.Event().wait(0.01)
                if served.turns.waiting == 2:
                    served.classify([Question(("Hello",))])
    finally:
        held.set()
        for thread in threads:
            thread.join(20)
    assert len(served.classify([Question(("Hello",))])) == 1
