"""Settings of the doctors of reward models and of PPO runs: what is looked at, and from where on it is a problem. No torch.

The thresholds are judgements, each with its reason; they are fields so that whoever judges otherwise can.
"""

from __future__ import annotations

from dataclasses import dataclass

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError


@dataclass(frozen=True)
class RewardDoctorConfig:
    """When a reward model is fit to start PPO."""

    preferences: tuple[SourceConfig, ...] = ()
    """Sources of judged pairs, of which the held-out part is scored. None at all: those that the model was trained with."""
    conversations: tuple[SourceConfig, ...] = ()
    """Conversations for the probes and the check of the normalisation, held-out part. None at all: as above."""
    heldout_pairs: int = 240
    """Most held-out prompts of conversations that are looked at."""
    least_pairs: int = 100
    """Held-out pairs under which the accuracy says too little: of 100 pairs the interval is about 0.1 wide on either side."""
    least_accuracy: float = 0.6
    """Smallest accuracy. Reward models of a billion parameters reach 0.63 to 0.70 on what people judged (Huang et al. 2024)."""
    largest_calibration_error: float = 0.15
    """Largest expected calibration error: how far the model is surer than it is right, on average."""
    largest_length_correlation: float = 0.4
    """Largest correlation of reward and length, either sign: at 0.4 length explains a sixth of the reward's variance."""
    largest_length_bias: float = 0.15
    """How far from one half the share of pairs whose better reply is the longer one may be."""
    least_probe: float = 0.6
    """Share of true replies that should beat their spoilt copies. Less is a note; an interval wholly under 0.5 a problem."""
    standard_errors: float = 3.0
    """How many standard errors the normalised reward may lie off mean 0 and deviation 1 on fresh replies of the policy."""
    largest_offset: float = 0.25
    """A normalisation that is off by more than chance and by more than this many deviations is a problem, less is a note."""

    def __post_init__(self) -> None:
        for name in ("heldout_pairs", "least_pairs"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        for name in (
            "least_accuracy",
            "largest_calibration_error",
            "largest_length_correlation",
            "largest_length_bias",
            "least_probe",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"must be between 0 and 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set a number from 0 to 1, or leave it out",
                )
        for name in ("standard_errors", "largest_offset"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"must be above 0, found {getattr(self, name)}",
                    where=name,
                    remedy="Set a larger number, or leave it out",
                )


@dataclass(frozen=True)
class PPODoctorConfig:
    """When a PPO run is healthy. Each figure is read from its metrics.jsonl."""

    rollouts: int = 3
    """Rollouts at each end whose mean is compared."""
    ratio_tolerance: float = 1e-4
    """How far the probability ratio of the very first update may be from 1."""
    kl_tolerance: float = 0.05
    """How far under 0 the mean KL of a rollout (nats a reply) may be: an estimate from samples is negative by chance now and
    then, but by little."""
    largest_kl: float = 25.0
    """Nats a reply beyond which the policy is no longer near what the reward model was trained on (Gao et al. 2023)."""
    least_entropy_share: float = 0.4
    """Share of the entropy at the start that should be left at the end."""
    largest_eos_fall: float = 0.1
    """How far the share of replies that end may fall."""
    largest_length_growth: float = 1.5
    """How many times longer (or shorter) replies may become before the reward is suspected of paying for length."""
    largest_length_correlation: float = 0.7
    """Correlation of score and length over the rollouts from which on a growth in length explains the gain."""
    largest_repetition_growth: float = 0.05
    """How far the share of repeated 4-grams may rise."""
    largest_clip_fraction: float = 0.4
    """Share of clipped tokens from which on the steps are too large."""
    least_explained_variance: float = 0.0
    """What the critic should explain at the end; under it, it is worse than a constant."""
    largest_sampler_difference: float = 0.05
    """Nats by which sampler and trainer may disagree on a token's log-probability."""

    def __post_init__(self) -> None:
        if self.rollouts < 1:
            raise ConfigError(
                f"must be at least 1, found {self.rollouts}",
                where="rollouts",
                remedy="Set it to 1 or more, or leave it out",
            )
