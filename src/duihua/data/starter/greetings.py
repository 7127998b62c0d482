"""Twenty greetings and simple questions a language, with every reply that the training data gives to them.

What a model says to "Hello" is the first thing that anybody tries. A reply counts as right when it is one of the
replies that the data gives, so this measures whether fine-tuning took hold, not whether the model is clever. The list is
made of what is asked in the train split of the chat corpora and the self-descriptions; `collect` makes it again from
the archives, and a test holds the shipped list to that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TypedDict

from duihua.data.records import Conversation, normalised
from duihua.data.source import SourceConfig, open_source

SOURCES = ("chatterbot-en", "chatterbot-zh", "identity")


class Greeting(TypedDict):
    """A prompt and all replies to it; a reply is right when it equals one, case, punctuation and spaces aside."""

    language: str
    prompt: str
    references: list[str]


def greetings() -> list[Greeting]:
    """The shipped list: twenty English, then twenty Chinese."""
    text = resources.files("duihua.data.starter").joinpath("greetings.json").read_text(encoding="utf-8")
    found: list[Greeting] = json.loads(text)
    return found


def collect(prompts: Iterable[str], data_directory: Path) -> list[Greeting]:
    """For each prompt every first reply that the train splits of `SOURCES` give to it, in the archives' order.

    Prompts are compared by their letters and digits alone ("who are you" is "Who are you?"). One that is never asked
    has no references.
    """
    replies: dict[str, list[tuple[str, str]]] = {}
    for name in SOURCES:
        for record in open_source(SourceConfig(name=name), data_directory).records("train"):
            assert isinstance(record, Conversation)
            key = normalised(record.messages[0]["content"])
            replies.setdefault(key, []).append((record.language, record.messages[1]["content"]))
    collected: list[Greeting] = []
    for prompt in prompts:
        found = replies.get(normalised(prompt), [])
        references = list({normalised(reply): reply for _, reply in reversed(found)}.values())[::-1]
        collected.append({"language": found[0][0] if found else "", "prompt": prompt, "references": references})
    return collected
