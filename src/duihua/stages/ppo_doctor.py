"""What the figures of a PPO run say about its health. No model is loaded, no torch imported.

Why these figures: each fault of PPO on language has a mark in the log long before anyone reads a reply. A first ratio other
than 1 means that sampler and trainer are not one policy; a KL under 0 that the reference is not where the policy started; a
score that rises with the length, or with the entropy gone, that the reward model is being gamed (Stiennon et al. 2020,
section 4.3; Huang et al. 2024). Runs of GRPO log the same names and are read as well; what they do not log is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from duihua import console
from duihua.stages.configs.doctors import PPODoctorConfig
from duihua.stages.diagnosis import Diagnosis, Finding
from duihua.stages.ppo_log import Row, by_rollout, correlation, mean, rollout_rows

KEPT = (
    "score", "gold_score", "kl", "entropy", "eos_rate", "length", "repetition", "explained_variance",
    "sampler_difference", "clip_fraction", "approximate_kl",
)  # fmt: skip
TOO_FEW = "start and end"
"""The check of a run that is too short for the others."""
FEWEST_ROLLOUTS = 3
"""Before that many nothing is said of a training that goes on."""


def findings_so_far(rows: Iterable[Any], config: PPODoctorConfig | None = None) -> list[Finding]:
    """What is not as it should be in the rows of a training that goes on; nothing of another kind of training, and nothing
    before `FEWEST_ROLLOUTS`, since one rollout is mostly chance. config: the thresholds, None for the usual ones."""
    known = rollout_rows(rows)
    if len({row["iteration"] for row in known}) < FEWEST_ROLLOUTS:
        return []
    found = examine(known, config or PPODoctorConfig()).findings
    return [finding for finding in found if finding.state != "ok" and finding.check != TOO_FEW]


def examine(rows: Sequence[Row], config: PPODoctorConfig) -> Diagnosis:
    """All checks on the updates of a run, in the order in which things go wrong."""
    rollouts = by_rollout(rows)
    enough = len(rollouts) > config.rollouts  # else both ends are the same rollouts
    ends = rollouts[: config.rollouts], rollouts[-config.rollouts :]
    first, last = ({name: mean(part, name) for name in KEPT} for part in ends)
    compared = [
        _gain(first, last, len(rollouts)),
        _length(rollouts, first, last, config),
        _entropy(first, last, config),
        _ends(first, last, config),
        _repetition(first, last, config),
    ]
    found = [
        _first_ratio(rows[0], config),
        _sampler(rollouts, config),
        _divergence(rollouts, config),
        *(compared if enough else [_too_few(len(rollouts), config), *_problems(compared)]),
        _clipping(rows, config),
        _critic(last, config),
        _gold(rollouts, config),
    ]
    figures = {"updates": len(rows), "rollouts": len(rollouts), "first": _known(first), "last": _known(last)}
    return Diagnosis([finding for finding in found if finding is not None], figures)


def _known(figures: Row) -> Row:
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _first_ratio(row: Row, config: PPODoctorConfig) -> Finding | None:
    if "ratio" not in row or row.get("step", 1) > 1:
        return None
    off = max(abs(row["ratio"] - 1), abs(row.get("approximate_kl", 0.0)))
    found = f"ratio {row['ratio']:.6f}, approximate KL {row.get('approximate_kl', 0.0):.2g} in the first update"
    if off <= config.ratio_tolerance:
        return Finding("ratio at the start", "ok", found)
    return Finding(
        "ratio at the start",
        "problem",
        found,
        "Before the first update the policy is the one that sampled, so that every ratio must be 1: the old "
        "log-probabilities are of other tokens, another temperature or another model",
        "Check that sampler and trainer read the same tokens at the same temperature, with dropout off",
    )


def _sampler(rollouts: Sequence[Row], config: PPODoctorConfig) -> Finding | None:
    values = [row["sampler_difference"] for row in rollouts if "sampler_difference" in row]
    if not values:
        return None
    found = f"at most {max(values):.2g} nats a token between sampler and trainer"
    if max(values) <= config.largest_sampler_difference:
        return Finding("sampler and trainer", "ok", found)
    return Finding(
        "sampler and trainer",
        "note",
        found,
        "The two forwards round differently; more than rounding means two different policies",
        "Try trainer.precision fp32: the difference should fall to 1e-4 or less",
    )


def _divergence(rollouts: Sequence[Row], config: PPODoctorConfig) -> Finding:
    values = [row["kl"] for row in rollouts if "kl" in row]
    found = f"KL from {values[0]:.3f} to {values[-1]:.3f} nats a reply, least {min(values):.3f}, most {max(values):.3f}"
    if min(values) < -config.kl_tolerance:
        return Finding(
            "divergence from the reference",
            "problem",
            found,
            "A KL is never negative: the replies are not drawn from the policy whose log-probabilities are compared (another "
            "temperature, top-k or top-p, pads that count), and the penalty then pays for moving away",
            "Draw replies from the bare policy; count reply tokens only",
        )
    if max(values) > config.largest_kl:
        return Finding(
            "divergence from the reference",
            "problem",
            found,
            "The policy has left the region in which the reward model was trained; its score there says little",
            "Raise kl_coefficient, set kl_target, or take an earlier checkpoint",
        )
    return Finding("divergence from the reference", "ok", found)


def _problems(found: Iterable[Finding | None]) -> list[Finding]:
    """Those that need no comparison: that no reply ends is seen in one rollout."""
    return [finding for finding in found if finding is not None and finding.state == "problem"]


def _too_few(rollouts: int, config: PPODoctorConfig) -> Finding:
    return Finding(
        TOO_FEW,
        "note",
        f"{console.counted(rollouts, 'rollout')}, of which the first {config.rollouts} and the last {config.rollouts} would "
        "be compared",
        "Score, length, entropy, ends and repetition were not looked at: there are too few rollouts to compare",
        "Raise iterations, or compare fewer with --rollouts 1",
    )


def _gain(first: Row, last: Row, rollouts: int) -> Finding | None:
    gain = last["score"] - first["score"]
    if math.isnan(gain):
        return None
    found = f"score {first['score']:+.3f} to {last['score']:+.3f} over {rollouts} rollouts"
    if gain > 0:
        return Finding("score", "ok", found)
    return Finding(
        "score",
        "note",
        found,
        "The reward has not risen: too few or too small updates, or a penalty that outweighs it",
        "Raise optimizer.learning_rate or iterations, or lower kl_coefficient",
    )


def _length(rollouts: Sequence[Row], first: Row, last: Row, config: PPODoctorConfig) -> Finding | None:
    factor = last["length"] / max(first["length"], 1e-9)
    if math.isnan(factor):
        return None
    known = [row for row in rollouts if "score" in row and "length" in row]
    related = correlation([row["score"] for row in known], [row["length"] for row in known])
    found = f"{first['length']:.1f} to {last['length']:.1f} tokens; correlation of score and length {related:+.2f}"
    changed = max(factor, 1 / max(factor, 1e-9)) > config.largest_length_growth
    if changed and abs(related) > config.largest_length_correlation and last["score"] > first["score"]:
        way = "long" if factor > 1 else "short"
        return Finding(
            "length",
            "problem",
            found,
            f"The score rises as replies become {way}: the reward model seems to pay for being {way}, not for being good",
            "Look at `duihua doctor reward`: balance the lengths of the pairs, or raise kl_coefficient",
        )
    if changed:
        return Finding("length", "note", found, "Replies have changed their length a good deal", "Read some of them")
    return Finding("length", "ok", found)


def _entropy(first: Row, last: Row, config: PPODoctorConfig) -> Finding | None:
    if math.isnan(first["entropy"]):
        return None
    found = f"{first['entropy']:.2f} to {last['entropy']:.2f} nats a token"
    if last["entropy"] >= config.least_entropy_share * first["entropy"]:
        return Finding("entropy", "ok", found)
    return Finding(
        "entropy",
        "problem",
        found,
        "The policy says nearly the same to everything: one way of pleasing the reward model has won, no other is tried",
        "Raise kl_coefficient, lower optimizer.learning_rate or epochs, or take an earlier checkpoint",
    )


def _ends(first: Row, last: Row, config: PPODoctorConfig) -> Finding | None:
    if math.isnan(first["eos_rate"]):
        return None
    found = f"{first['eos_rate']:.0%} to {last['eos_rate']:.0%} of replies end by themselves"
    if last["eos_rate"] == 0.0:
        return Finding(
            "ends",
            "problem",
            found,
            "No reply ends: the model has never learnt its stop token, or the replies are cut before it",
            "Fine-tune on data whose replies end with the stop token, or raise reply_tokens",
        )
    if first["eos_rate"] - last["eos_rate"] <= config.largest_eos_fall:
        return Finding("ends", "ok", found)
    return Finding(
        "ends",
        "problem",
        found,
        "Replies run into the limit more often than before: going on pays more than ending",
        "Raise missing_end_value, or raise reply_tokens where good replies need more",
    )


def _repetition(first: Row, last: Row, config: PPODoctorConfig) -> Finding | None:
    if math.isnan(first["repetition"]):
        return None
    found = f"{first['repetition']:.1%} to {last['repetition']:.1%} of 4-grams are repeated"
    if last["repetition"] - first["repetition"] <= config.largest_repetition_growth:
        return Finding("repetition", "ok", found)
    return Finding(
        "repetition",
        "problem",
        found,
        "The policy repeats itself for the score: the reward model does not see repetition",
        "See the probe `repeated_text` of `duihua doctor reward`; raise kl_coefficient",
    )


def _clipping(rows: Sequence[Row], config: PPODoctorConfig) -> Finding | None:
    share = mean(rows, "clip_fraction")
    if math.isnan(share):
        return None
    found = f"{share:.1%} of tokens are clipped on average"
    if share <= config.largest_clip_fraction:
        return Finding("step size", "ok", found)
    return Finding(
        "step size",
        "note",
        found,
        "Most of what the updates want is cut off: the steps are larger than the objective allows",
        "Lower optimizer.learning_rate or epochs",
    )


def _critic(last: Row, config: PPODoctorConfig) -> Finding | None:
    share = last["explained_variance"]
    if math.isnan(share):
        return None
    found = f"the critic explains {share:.0%} of the variance of the returns at the end"
    if share >= config.least_explained_variance:
        return Finding("critic", "ok", found)
    return Finding(
        "critic",
        "note",
        found,
        "A critic worse than a constant makes advantages noisier, not better",
        "Raise value_coefficient, or use critic: reward",
    )


def _gold(rollouts: Sequence[Row], config: PPODoctorConfig) -> Finding | None:
    known = [row for row in rollouts if "gold_score" in row]
    if len(known) < 2 * config.rollouts:
        return None
    ends = known[: config.rollouts], known[-config.rollouts :]
    gold, score = (mean(ends[1], name) - mean(ends[0], name) for name in ("gold_score", "score"))
    found = f"gold score {gold:+.3f} while the score moved {score:+.3f}"
    if not (score > 0 and gold < 0):
        return Finding("gold score", "ok", found)
    best = max(known, key=lambda row: row["gold_score"])
    return Finding(
        "gold score",
        "problem",
        found,
        "The score rises while what it stands for falls: over-optimisation (Gao et al. 2023)",
        f"Stop near rollout {best['iteration']:.0f}, where the gold score was highest, or raise kl_coefficient",
    )
