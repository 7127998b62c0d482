"""Rewards that are worked out instead of learnt: is the sum right, has the reply the right form, is it the known answer?

Why: where a reply can be checked there is nothing to game and no reward model to outrun, so that reinforcement learning
shows what it can do (Lambert et al. 2024, Tulu 3, section 6; Shao et al. 2024). What a rule cannot judge (a prompt without
a sum, data without an answer) is left out before training and counted, and never scored as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from duihua.data.pairs import Exchange
from duihua.data.records import Message, normalised
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.replies import Prompt, Reply, Scorer
from duihua.text.tokenizer import Tokenizer

_SUM = re.compile(r"(\d+)\s*(\+|-|\*|×|x|−|plus|minus|times|and|加上?|减去?|乘以?|和|与)\s*(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"[-−]?\d+")
_PLUS = ("+", "plus", "and", "加", "加上", "和", "与")
_MINUS = ("-", "−", "minus", "减", "减去")


def worked_out(text: str) -> int | None:
    """The result of the first sum, difference or product of two whole numbers in `text`; None where there is none."""
    found = _SUM.search(text)
    if found is None:
        return None
    first, sign, second = int(found[1]), found[2].lower(), int(found[3])
    if sign in _PLUS:
        return first + second
    return first - second if sign in _MINUS else first * second


def last_number(text: str) -> int | None:
    """The last whole number in `text`; None where there is none."""
    found = _NUMBER.findall(text)
    return int(found[-1].replace("−", "-")) if found else None


def passes(rule: RuleConfig, messages: Sequence[Message], answer: str, text: str) -> bool:
    """Whether a reply's text passes the rule. answer: the data's own reply to these messages."""
    if rule.kind == "arithmetic":
        right = worked_out(messages[-1]["content"])
        return right is not None and last_number(text) == right
    if rule.kind == "pattern":
        return re.fullmatch(rule.pattern, text.strip()) is not None
    if rule.compare == "number":
        right = last_number(answer)
        return right is not None and last_number(text) == right
    return bool(normalised(answer)) and normalised(text) == normalised(answer)


def cannot_judge(rules: Sequence[RuleConfig]) -> Callable[[Exchange], str]:
    """A function that says why the rules cannot judge replies to an exchange's prompt; "" where they can."""
    return lambda exchange: problem(rules, exchange.prompt, exchange.reply)


def problem(rules: Sequence[RuleConfig], messages: Sequence[Message], answer: str) -> str:
    """Why the rules cannot judge replies to these messages, "" where they can. answer: as in `passes`."""
    for rule in rules:
        if rule.kind == "arithmetic" and worked_out(messages[-1]["content"]) is None:
            return "the prompt holds no sum"
        if rule.kind == "answer" and rule.compare == "number" and last_number(answer) is None:
            return "the data's reply holds no number"
        if rule.kind == "answer" and rule.compare == "text" and not normalised(answer):
            return "the data's reply has no letter and no digit"
    return ""


def rules_score(rules: Sequence[RuleConfig], prompt: Prompt, text: str) -> float:
    """The weights of the rules that the reply passes, added up."""
    return sum((rule.weight for rule in rules if passes(rule, prompt.messages, prompt.answer, text)), 0.0)


def verifiable_scorer(rules: Sequence[RuleConfig], tokenizer: Tokenizer) -> Scorer:
    """The rules as a scorer of replies."""

    def score(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        texts = (tokenizer.decode(reply.ids) for reply in replies)
        return torch.tensor([rules_score(rules, prompt, text) for prompt, text in zip(prompts, texts, strict=True)])

    return score
