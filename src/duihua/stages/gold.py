"""The gold reward: what is meant, measured beside what is trained on and never trained on.

Why: a learnt reward is a proxy, and a proxy that is pushed far enough rises while what it stands for falls (Gao et al. 2023).
That shows only where what is meant can be worked out: the reply that the data gives, a sum, a form. So rules, or a function
in Python, can be the gold reward of PPO and GRPO. It must not decide which prompts are trained on either, for then measuring
would change what is learnt: a prompt that its rules cannot judge is trained on like the others, and has no gold score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from duihua import console
from duihua.errors import ConfigError
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.judging import FEWEST_PROMPTS
from duihua.stages.replies import Prompt, Reply, Scorer
from duihua.stages.scoring import Rule, rule_scorer
from duihua.stages.verifiable import problem, verifiable_scorer
from duihua.text.tokenizer import Tokenizer


def gold_scorer(rules: Sequence[RuleConfig], python: Rule | None, tokenizer: Tokenizer) -> Scorer | None:
    """The Python rule if there is one, else the rules of the settings; None for neither.

    A reply to a prompt that the rules cannot judge has no score (nan), and a Python rule may say so too: means leave it out.
    """
    if python is not None:
        return rule_scorer(python, tokenizer)
    if not rules:
        return None
    worked_out = verifiable_scorer(rules, tokenizer)

    def score(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        unknown = torch.tensor([bool(_problem(rules, prompt)) for prompt in prompts], dtype=torch.bool)
        return worked_out(prompts, replies).masked_fill(unknown, float("nan"))

    return score


def check_gold(stage: str, rules: Sequence[RuleConfig], prompts: Sequence[Prompt], called: str) -> None:
    """ConfigError where the gold rules can judge next to none of the prompts; says how many they cannot judge. called: what the
    prompts are."""
    reasons = Counter(reason for prompt in prompts if (reason := _problem(rules, prompt)))
    if not reasons:
        return
    known, (most, _) = len(prompts) - reasons.total(), reasons.most_common(1)[0]
    if known < FEWEST_PROMPTS:
        raise ConfigError(
            f"the gold rules can judge replies to {known} of {len(prompts)} {called}, at least {FEWEST_PROMPTS} are needed "
            f"({most})",
            where=f"{stage}.gold",
            remedy="State a rule that these prompts can be judged by, such as a pattern, or other sources",
        )
    console.say(f"{stage}: {reasons.total()} of {len(prompts)} {called} have no gold score ({most})")


def _problem(rules: Sequence[RuleConfig], prompt: Prompt) -> str:
    return problem(rules, prompt.messages, prompt.answer)
