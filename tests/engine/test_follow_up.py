"""A follow-up question is answered out of what was said before: "And its capital?" after a talk about France.

Why a model is trained here: a random one says nothing that its history could change. It learns some hundred short talks in
English and Chinese in which only the user's first message names the country; one opening of each country is kept for the
test, so that what is held is the use of the history and not a text known by heart.
"""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import pytest
import torch

import duihua
from duihua.cli import chat
from duihua.data.packing import encode_conversations, make_batch
from duihua.data.records import Conversation, Message
from duihua.engine.chat_model import ChatModel
from duihua.models.bundle import ModelCard, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.stages.sft import sft_loss
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

FACTS = {
    "en": {
        "France": ("Paris", "French"),
        "Japan": ("Tokyo", "Japanese"),
        "Egypt": ("Cairo", "Arabic"),
        "Peru": ("Lima", "Spanish"),
    },
    "zh": {
        "法国": ("巴黎", "法语"),
        "日本": ("东京", "日语"),
        "埃及": ("开罗", "阿拉伯语"),
        "秘鲁": ("利马", "西班牙语"),
    },
}
"""Country -> its capital and its language."""
OPENINGS = {
    "en": (
        "Where is {}?",
        "Tell me about {}.",
        "Have you been to {}?",
        "What is {}?",
        "Do you know {}?",
        "I am going to {}.",
        "How is {}?",
        "{}!",
    ),
    "zh": ("{}在哪里？", "说说{}。", "你去过{}吗？", "{}是什么？", "你知道{}吗？", "我要去{}。", "{}怎么样？", "{}！"),
}
ANSWERS = {"en": "It is a country.", "zh": "那是一个国家。"}
"""To every opening: it does not say which country it was."""
FOLLOW_UPS = {"en": ("And its capital?", "And its language?"), "zh": ("它的首都呢？", "它的语言呢？")}


def opened(language: str, country: str, opening: int) -> list[Message]:
    """The first two turns of a talk."""
    question = OPENINGS[language][opening].format(country)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": ANSWERS[language]}]


def talk(language: str, country: str, opening: int, order: tuple[int, int]) -> Conversation:
    """Opening and answer, then both follow-ups with their answers in this order."""
    messages = opened(language, country, opening)
    for which in order:
        messages.append({"role": "user", "content": FOLLOW_UPS[language][which]})
        messages.append({"role": "assistant", "content": FACTS[language][country][which]})
    return Conversation(messages, "follow-ups", language)


def held_out() -> list[tuple[str, str, int]]:
    """(language, country, opening) that no training talk has: one opening for each country."""
    return [(language, country, place) for language, facts in FACTS.items() for place, country in enumerate(facts)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat bundle that has learnt the training talks."""
    kept = set(held_out())
    talks = [
        talk(language, country, opening, order)
        for language, facts in FACTS.items()
        for country in facts
        for opening in range(len(OPENINGS[language]))
        for order in ((0, 1), (1, 0))
        if (language, country, opening) not in kept
    ]
    texts = [message["content"] for one in talks for message in one.messages]
    tokenizer = Tokenizer.train([*texts, *(["user\nassistant\n"] * 20)], 400)
    encoded = encode_conversations(talks, ChatTemplate(tokenizer), 128)
    assert len(encoded.examples) == len(talks) and not encoded.left_out
    length = max(example.length for example in encoded.examples)
    config = DecoderConfig(
        vocabulary_size=tokenizer.vocabulary_size,
        width=64,
        layers=2,
        heads=4,
        key_value_heads=4,
        head_width=16,
        feed_forward_width=128,
        context=128,
    )
    steps, draw = 240, random.Random(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            network = Decoder(config).initialise(0)
            optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, betas=(0.9, 0.95))
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = 4e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
                rows = [[example] for example in draw.sample(encoded.examples, 12)]
                parts = sft_loss(network, make_batch(rows, length, tokenizer.pad_id))
                optimizer.zero_grad()
                (parts.sum / parts.weight).backward()
                optimizer.step()
    finally:
        torch.set_num_threads(threads)
    folder = tmp_path_factory.mktemp("follow-up") / "sft"
    save_bundle(folder, network.eval(), tokenizer, ModelCard(title="Tiny", stage="sft"))
    return folder


@pytest.fixture(scope="module")
def model(directory: Path) -> ChatModel:
    return duihua.load(directory)


def asked(model: ChatModel, history: list[Message], question: str) -> str:
    """The likeliest reply to a question after a history."""
    messages: list[Message] = [*history, {"role": "user", "content": question}]
    return model.chat(messages, temperature=0.0, repetition_penalty=1.0, max_new_tokens=12).strip()


def test_a_follow_up_is_answered_out_of_the_history(model: ChatModel) -> None:
    """Talks whose opening was never met with that country; each follow-up, and one follow-up after the other."""
    for language, country, opening in held_out():
        history = opened(language, country, opening)
        for which, (question, right) in enumerate(zip(FOLLOW_UPS[language], FACTS[language][country], strict=True)):
            assert asked(model, history, question) == right, (country, question)
            other = 1 - which
            longer: list[Message] = [
                *history,
                {"role": "user", "content": question},
                {"role": "assistant", "content": right},
            ]
            assert asked(model, longer, FOLLOW_UPS[language][other]) == FACTS[language][country][other]


def test_without_its_history_the_same_question_cannot_be_answered(model: ChatModel) -> None:
    """The control: the question alone has one answer for all countries, and so has a history about another country."""
    for language, facts in FACTS.items():
        capitals = [capital for capital, _ in facts.values()]
        alone = asked(model, [], FOLLOW_UPS[language][0])
        assert sum(alone == capital for capital in capitals) <= 1
        countries = list(facts)
        for place, country in enumerate(countries):
            another = countries[(place + 1) % len(countries)]
            history = opened(language, another, (place + 1) % len(countries))
            assert asked(model, history, FOLLOW_UPS[language][0]) == facts[another][0] != facts[country][0]


def test_the_terminal_keeps_the_history_from_line_to_line(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`duihua chat`: one conversation through a pipe, then the follow-up after `/reset`, when nothing is known any more."""
    typed = "What is Peru?\nAnd its capital?\n/reset\nHave you been to Egypt?\nAnd its capital?\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8"))
    settings = ["--temperature", "0", "--repetition-penalty", "1", "--max-new-tokens", "12"]
    assert chat.main([str(directory), "--json", *settings]) == 0
    turns = json.loads(capsys.readouterr().out)["turns"]
    assert [turn["reply"] for turn in turns] == ["It is a country.", "Lima", "It is a country.", "Cairo"]
    prompts = [turn["usage"]["prompt_tokens"] for turn in turns]
    assert prompts[1] > prompts[0] and prompts[2] < prompts[1]  # the second talk begins anew
