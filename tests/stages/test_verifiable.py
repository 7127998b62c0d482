"""Rewards that are worked out: what passes, what does not, and which prompts cannot be judged."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from duihua.config import build
from duihua.data.arithmetic import WORDINGS
from duihua.data.pairs import Exchange
from duihua.errors import ConfigError
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.replies import Prompt, Reply
from duihua.stages.verifiable import cannot_judge, last_number, passes, verifiable_scorer, worked_out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is 12 + 30?", 42), ("12 - 30 = ?", -18), ("3 × 4", 12), ("3加上4是多少？", 7), ("9 minus 4", 5),
        ("How much is 56 plus 22?", 78), ("9减4等于几？", 5), ("6乘以7", 42), ("no sum, only 7", None), ("5", None),
    ],
)  # fmt: skip
def test_the_sum_of_a_prompt_is_worked_out(text: str, expected: int | None) -> None:
    assert worked_out(text) == expected


def test_every_wording_of_the_arithmetic_source_is_understood() -> None:
    for wordings in WORDINGS.values():
        for wording in wordings:
            assert worked_out(wording.format(a=17, b=25)) == 42, wording
            assert worked_out(wording.format(a=25, b=18)) != 42


def test_the_last_number_counts_with_its_sign() -> None:
    assert last_number("3 + 4 = 7") == 7
    assert last_number("it is -7.") == -7
    assert last_number("seven") is None


def rule(kind: str, **more: Any) -> RuleConfig:
    return build(RuleConfig, {"kind": kind, **more})


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("of", "answer", "reply", "expected"),
    [
        (rule("arithmetic"), "", "3 + 4 is 7.", True),
        (rule("arithmetic"), "", "7, or perhaps 8", False),
        (rule("arithmetic"), "", "no idea", False),
        (rule("pattern", pattern=r"-?\d+"), "", " 12 ", True),
        (rule("pattern", pattern=r"-?\d+"), "", "12 or so", False),
        (rule("answer"), "The cat sings.", "the cat sings", True),
        (rule("answer"), "The cat sings.", "the cat sings well", False),
        (rule("answer", compare="number"), "It is 7", "7", True),
        (rule("answer", compare="number"), "It is 7", "7 or 8", False),
    ],
)
def test_what_passes(of: RuleConfig, answer: str, reply: str, expected: bool) -> None:
    assert passes(of, ask("3 + 4 = ?"), answer, reply) is expected


def test_weights_are_added_and_the_scorer_reads_the_texts(lab: Any) -> None:
    rules = [rule("arithmetic"), rule("pattern", pattern=r"\d+", weight=0.25)]
    score = verifiable_scorer(rules, lab.tokenizer)
    prompts = [Prompt(i, ask("3 + 4 = ?"), [1]) for i in range(4)]
    replies = [Reply(lab.tokenizer.encode(text), [], True) for text in ("7", "= 7", "8", "none")]
    assert torch.equal(score(prompts, replies), torch.tensor([1.25, 1.0, 0.25, 0.0]))


def test_prompts_that_cannot_be_judged_are_named() -> None:
    def reason(of: RuleConfig, prompt: str, reply: str) -> str:
        return cannot_judge([of])(Exchange(ask(prompt), reply, "s", "en"))

    assert reason(rule("arithmetic"), "hello", "7") == "the prompt holds no sum"
    assert reason(rule("arithmetic"), "1 + 1", "hello") == ""
    assert reason(rule("answer", compare="number"), "hello", "hi") == "the data's reply holds no number"
    assert reason(rule("answer"), "hello", "...") == "the data's reply has no letter and no digit"
    assert reason(rule("pattern", pattern="a+"), "hello", "") == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "pattern"}, "needs a pattern"),
        ({"kind": "pattern", "pattern": "("}, "not a regular expression"),
        ({"kind": "arithmetic", "pattern": "a"}, "reads no pattern"),
        ({"kind": "arithmetic", "weight": 0}, "rewards nothing"),
    ],
)
def test_impossible_rules_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(RuleConfig, settings)
