"""Settings of a reward that is worked out instead of learnt. No torch here, so that help stays quick."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from duihua.errors import ConfigError


@dataclass(frozen=True)
class RuleConfig:
    """One thing about a reply that can be checked: it earns `weight` where the check holds and nothing where it does not."""

    kind: Literal["arithmetic", "pattern", "answer"] = "arithmetic"
    """arithmetic: the last number of the reply is the result of the sum in the prompt's last message; pattern: the whole
    reply matches `pattern`; answer: the reply is the one that the data gives."""
    weight: float = 1.0
    """What a reply earns that passes. Rewards of several rules are added."""
    pattern: str = ""
    """pattern: a regular expression, which must match the reply from its first character to its last (spaces around it
    aside)."""
    compare: Literal["text", "number"] = "text"
    """answer: what must be equal. text: the letters and digits, whatever the case and the marks; number: the last number of
    each."""

    def __post_init__(self) -> None:
        if self.kind == "pattern":
            if not self.pattern:
                raise ConfigError(
                    "a rule of this kind needs a pattern", where="pattern", remedy="Write one, such as -?\\d+"
                )
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ConfigError(
                    f"is not a regular expression: {error}", where="pattern", remedy="Correct the expression"
                ) from error
        elif self.pattern:
            raise ConfigError(
                f"a rule of the kind {self.kind} reads no pattern", where="pattern", remedy="Set kind: pattern"
            )
        if self.weight == 0:
            raise ConfigError("a rule of weight 0 rewards nothing", where="weight", remedy="Remove the rule")
