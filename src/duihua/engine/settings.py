"""How text is drawn from a model: the settings of one request, as data. No torch here, so that help stays quick.

The order in which the settings act on the logits, each on what the one before left:

1. repetition penalty, on every token of the prompt and of the reply so far (Keskar et al. 2019, section 4.1);
2. presence and frequency penalties, on tokens of the reply so far (the formula of OpenAI's API reference);
3. logit bias; 4. end tokens held back below `min_new_tokens`; 5. temperature;
6. top-k; 7. top-p of what top-k left (Holtzman et al. 2020); 8. min-p (Nguyen et al. 2024); 9. one draw.

Recorded log-probabilities are those of the model at the temperature, log softmax(logits / temperature), BEFORE steps
1-4 and 6-8: the number that a trainer computes for the same token. Greedy text (temperature 0, or as good as 0) records
them at temperature 1. PPO's rollouts use `require_plain`, so that for them the recorded and the sampled distribution
are one and the same.

Every setting has bounds within which the logits stay finite in fp32: one request shares its batch with others, and a
number that overflows is then nobody's reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from duihua.errors import GenerationError

MOST_TOP_LOGPROBS = 20
GREEDY_BELOW = 1e-5
"""A temperature under it is greedy, as in vLLM: tokens whose logits differ by 0.001 stand 100 nats apart there, and far
below it the quotient leaves fp32."""
LARGEST = 1e9
"""Bound of what is added to logits, and of the temperature: no model's logits are anywhere near."""
PENALTIES = (0.1, 10.0)
"""Bounds of the repetition penalty, which are each other's inverse; papers and models use 1 to 2."""


@dataclass(frozen=True)
class SamplingSettings:
    """How one reply is drawn. The defaults draw from the model's own distribution, unchanged."""

    temperature: float = 1.0
    """Logits are divided by it: below 1 bolder in the likely, above 1 wilder; 0, or less than 0.00001, takes the
    likeliest token (greedy)."""
    top_k: int = 0
    """Draw among the k likeliest tokens only; 0, or more than the vocabulary has, for all."""
    top_p: float = 1.0
    """Draw among the fewest likeliest tokens that together have this probability; 1 for all."""
    min_p: float = 0.0
    """Leave out tokens less likely than this share of the likeliest one's probability; 0 for none."""
    repetition_penalty: float = 1.0
    """Divide positive (multiply negative) logits of tokens in prompt and reply by it; 1 for no change; 0.1 to 10."""
    presence_penalty: float = 0.0
    """Subtract it from the logit of every token that the reply already has."""
    frequency_penalty: float = 0.0
    """Subtract it from a token's logit once for each time that the reply already has it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id to a number added to its logit; -100 all but forbids a token."""
    max_new_tokens: int = 256
    """Most tokens of a reply, its end token included; the model's context can end it earlier."""
    min_new_tokens: int = 0
    """End tokens are held back until the reply has this many tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end the reply where they first appear; they are not part of its text."""
    stop_ids: tuple[int, ...] | None = None
    """Token ids that end the reply; none given: the tokenizer's end tokens; an empty tuple: nothing ends it early."""
    seed: int | None = None
    """Same seed, same text, whatever else is being generated; none given: a fresh one."""
    top_logprobs: int = 0
    """For each token also record this many likeliest alternatives with their log-probabilities (at most 20)."""

    def __post_init__(self) -> None:
        self._check("temperature", 0.0 <= self.temperature <= LARGEST, f"must be between 0 (greedy) and {LARGEST:g}")
        self._check("top_k", self.top_k >= 0, "must be 0 (all) or more")
        self._check("top_p", 0.0 < self.top_p <= 1.0, "must be above 0 and at most 1")
        self._check("min_p", 0.0 <= self.min_p <= 1.0, "must be between 0 and 1")
        low, high = PENALTIES
        self._check("repetition_penalty", low <= self.repetition_penalty <= high, f"must be between {low} and {high}")
        for name in ("presence_penalty", "frequency_penalty"):
            self._check(name, abs(getattr(self, name)) <= LARGEST, f"must be between {-LARGEST:g} and {LARGEST:g}")
        bounded = all(key >= 0 and abs(value) <= LARGEST for key, value in self.logit_bias.items())
        self._check("logit_bias", bounded, f"needs token ids of 0 or more with numbers of at most {LARGEST:g}")
        self._check("max_new_tokens", self.max_new_tokens >= 1, "must be at least 1")
        self._check("min_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens, "must be 0 to max_new_tokens")
        one_by_one = isinstance(self.stop, tuple) and all(self.stop)
        self._check("stop", one_by_one, "must be a tuple of strings that are not empty")
        enough = 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS
        self._check("top_logprobs", enough, f"must be between 0 and {MOST_TOP_LOGPROBS}")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise GenerationError(
                f"{rule}, found {getattr(self, name)!r}", where=name, remedy="Set another value, or leave it out"
            )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature < GREEDY_BELOW

    @property
    def penalised(self) -> bool:
        """Whether tokens that were already there change the logits."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    @property
    def truncated(self) -> bool:
        """Whether only a part of the vocabulary can be drawn."""
        return self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0


def require_plain(settings: SamplingSettings, where: str = "sampling") -> None:
    """Raise GenerationError unless tokens are drawn from the very distribution whose log-probabilities are recorded.

    Why: PPO's ratio compares the trainer's log-probability with the sampler's. With top-k, top-p or a penalty the
    sampler draws from another distribution, and the ratio is wrong from the first step.
    """
    allowed = SamplingSettings()
    names = ("top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_new_tokens")
    wrong = [name for name in names if getattr(settings, name) != getattr(allowed, name)]
    wrong += ["logit_bias"] if settings.logit_bias else []
    wrong += ["temperature"] if settings.greedy else []
    if wrong:
        raise GenerationError(
            "rollouts are drawn from the policy itself, found other values of " + ", ".join(wrong),
            where=where,
            remedy="Leave them at their defaults; only a positive temperature may change",
        )
