"""The official openai client against a server with a tiny real model: English and Chinese, streamed and not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

import duihua
from duihua.engine.chat_model import ChatModel
from duihua.serving.config import ServingConfig
from duihua.serving.models import ModelSource, load_engine_model

ENGLISH = [{"role": "user", "content": "Hello, how are you?"}]
CHINESE = [{"role": "system", "content": "请用中文回答。"}, {"role": "user", "content": "你好，今天怎么样？🙂"}]


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = ServingConfig(slots=3, queue=6)
    source = ModelSource("sft", tiny_bundle)
    with serve(tmp_path_factory.mktemp("store"), lambda: load_engine_model(source, config)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> ChatModel:
    return duihua.load(tiny_bundle)


@pytest.mark.parametrize(
    "change", [{"top_k": 2**63}, {"top_k": 2**70}, {"temperature": 1e-40}, {"temperature": 1e-300}]
)
def test_settings_beyond_torchs_numbers_are_served_as_the_nearest_that_it_has(
    server: Any, model: ChatModel, change: dict[str, Any]
) -> None:
    asked = {"model": "sft", "messages": ENGLISH, "seed": 3, "max_tokens": 6, "temperature": 1.0}
    nearest = {"top_k": 0} if "top_k" in change else {"temperature": 0.0}
    texts = []
    for body in ({**asked, **change}, {**asked, **nearest}):
        answer = httpx.post(f"{server.address}/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        texts.append(answer.json()["choices"][0]["message"]["content"])
    assert texts[0] == texts[1]
    assert texts[0] != model.chat(ENGLISH, seed=3, max_new_tokens=6, temperature=2.0)  # negative control


def test_a_repetition_penalty_that_makes_logits_infinite_is_a_400(server: Any) -> None:
    asked = {"model": "sft", "messages": ENGLISH, "max_tokens": 6}
    for penalty, status in ((1e-44, 400), (0.09, 400), (0.1, 200), (10.0, 200)):
        answer = httpx.post(f"{server.address}/v1/chat/completions", json={**asked, "repetition_penalty": penalty})
        assert answer.status_code == status, answer.text
        assert status == 200 or answer.json()["error"]["param"] == "repetition_penalty"


@pytest.mark.parametrize("messages", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_a_streamed_reply_is_the_reply(client: openai.OpenAI, messages: Any) -> None:
    asked = {"model": "sft", "messages": messages, "seed": 5, "max_tokens": 40, "temperature": 1.0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert not chunks[0].choices[0].delta.content
    assert all(choice.delta.role is None for chunk in chunks[1:] for choice in chunk.choices)
    assert len({chunk.id for chunk in chunks}) == 1
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == [whole.choices[0].finish_reason]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("messages", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_the_server_writes_what_the_library_writes(client: openai.OpenAI, model: ChatModel, messages: Any) -> None:
    reply = client.chat.completions.create(model="sft", messages=messages, seed=9, max_tokens=30, temperature=0.8)
    assert reply.choices[0].message.content == model.chat(messages, seed=9, max_new_tokens=30, temperature=0.8)
    # The same check tells another seed apart.
    assert reply.choices[0].message.content != model.chat(messages, seed=10, max_new_tokens=30, temperature=0.8)


def test_the_raw_stream_ends_with_done_and_leaves_chinese_unescaped(server: Any) -> None:
    body = {"model": "sft", "messages": CHINESE, "seed": 3, "max_tokens": 30, "stream": True}
    with httpx.stream("POST", f"{server.address}/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "chat.completion.chunk" for line in lines[:-1])


def test_finish_reason_is_length_at_the_limit(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="sft", messages=ENGLISH, max_completion_tokens=1, logit_bias={"100": 100}
    )
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 1


def test_finish_reason_is_stop_at_an_end_token(client: openai.OpenAI, model: ChatModel) -> None:
    end = {str(model.tokenizer.im_end_id): 100}
    reply = client.chat.completions.create(model="sft", messages=ENGLISH, logit_bias=end)
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content == ""


def test_a_stop_string_ends_the_reply_and_is_not_in_it(client: openai.OpenAI) -> None:
    asked: Any = {"model": "sft", "messages": ENGLISH, "seed": 4, "max_tokens": 60, "temperature": 1.0}
    text = client.chat.completions.create(**asked).choices[0].message.content
    assert text
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    stopped = client.chat.completions.create(**asked, stop=[stop]).choices[0]
    assert stopped.message.content == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"
    pieces = client.chat.completions.create(**asked, stop=stop, stream=True)
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == stopped.message.content


def test_n_gives_different_samples_and_the_first_is_the_one_alone(client: openai.OpenAI) -> None:
    asked: Any = {"model": "sft", "messages": ENGLISH, "seed": 4, "max_tokens": 24, "temperature": 1.0}
    several = client.chat.completions.create(**asked, n=3)
    texts = [choice.message.content for choice in several.choices]
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert texts[0] == client.chat.completions.create(**asked).choices[0].message.content
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**asked, n=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_logprobs_are_those_of_the_tokens(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="sft",
        messages=ENGLISH,
        max_tokens=12,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        extra_body={"repetition_penalty": 1.0},
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for token in logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        # Greedy: the chosen token is the likeliest (or ties with it).
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob, abs=1e-5)
    written = b"".join(bytes(token.bytes or []) for token in logprobs.content)
    assert written.decode("utf-8", "replace") == reply.choices[0].message.content


def test_completions_go_on_from_text(client: openai.OpenAI, model: ChatModel) -> None:
    asked: Any = {"model": "sft", "seed": 2, "max_tokens": 20, "temperature": 1.0}
    one = client.completions.create(prompt="Hello", logprobs=2, **asked)
    assert one.choices[0].text == model.generate("Hello", seed=2, max_new_tokens=20, temperature=1.0)
    assert one.choices[0].logprobs is not None
    assert one.choices[0].logprobs.tokens is not None
    both = client.completions.create(prompt=["Hello", "你好"], **asked)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text == one.choices[0].text
    streamed = ["", ""]
    for chunk in client.completions.create(prompt=["Hello", "你好"], stream=True, **asked):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == [choice.text for choice in both.choices]


def test_answers_have_exactly_the_clients_types(server: Any) -> None:
    """The client forgives missing fields; its own models, validated, do not."""
    body = {"model": "sft", "messages": ENGLISH, "max_tokens": 4, "logprobs": True}
    answer = httpx.post(f"{server.address}/v1/chat/completions", json=body).json()
    ChatCompletion.model_validate(answer, strict=True)
    del answer["choices"][0]["finish_reason"]
    with pytest.raises(ValueError, match="finish_reason"):
        ChatCompletion.model_validate(answer, strict=True)
    text = httpx.post(f"{server.address}/v1/completions", json={"model": "sft", "prompt": "Hi", "max_tokens": 4}).json()
    Completion.model_validate(text, strict=True)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["sft"]
    assert client.models.retrieve("sft").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_a_conversation_longer_than_the_context_says_what_it_left_out(client: openai.OpenAI) -> None:
    turn = [{"role": "user", "content": "Hello " * 20}, {"role": "assistant", "content": "I am fine."}]
    messages: Any = [*turn * 6, *ENGLISH]
    reply = client.chat.completions.create(model="sft", messages=messages, max_tokens=4)
    assert reply.model_extra is not None
    assert reply.model_extra["duihua"]["dropped_turns"] >= 1
    short = client.chat.completions.create(model="sft", messages=ENGLISH, max_tokens=4)  # type: ignore[arg-type]
    assert "duihua" not in (short.model_extra or {})
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="sft", messages=[{"role": "user", "content": "你好" * 500}])


def test_control_strings_of_a_user_stay_text(client: openai.OpenAI, model: ChatModel) -> None:
    """Every character of `<|im_end|>` reaches the model as text; as a control token it would be one id."""

    def prompt_tokens(content: str) -> int:
        usage = client.chat.completions.create(
            model="sft", messages=[{"role": "user", "content": content}], max_tokens=1
        ).usage
        assert usage is not None
        return usage.prompt_tokens

    frame = prompt_tokens("x") - len(model.tokenizer.encode("x"))
    assert prompt_tokens("a<|im_end|>b") == frame + len(model.tokenizer.encode("a<|im_end|>b"))
    assert len(model.tokenizer.encode("<|im_end|>")) > 1


def test_the_second_turn_reuses_the_first_ones_cache(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="sft", messages=ENGLISH, max_tokens=6, temperature=0)
    said: Any = first.choices[0].message.content
    longer: Any = [*ENGLISH, {"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(model="sft", messages=longer, max_tokens=2)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) > 5
