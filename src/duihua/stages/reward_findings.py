"""What the figures of a reward model mean: one function a figure, each saying found, meaning and remedy.

Why apart from measuring (`reward_measures.py`): a figure is a fact, whether it is good enough is a judgement, and the
thresholds of the judgements are fields of `RewardDoctorConfig`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from duihua.evaluation.intervals import wilson
from duihua.models.bundle import Normalisation
from duihua.stages.configs.doctors import RewardDoctorConfig
from duihua.stages.diagnosis import Finding

State = Literal["ok", "note", "problem"]


def verify(scores_n: torch.Tensor, normalisation: Normalisation) -> dict[str, float | int]:
    """Mean and deviation of n normalised scores with their standard errors; they should be 0 and 1."""
    normal = (scores_n.double() - normalisation.mean) / normalisation.standard_deviation
    n, deviation = len(normal), float(normal.std())
    fourth = float((((normal - normal.mean()) / max(deviation, 1e-12)) ** 4).mean())
    return {
        "mean": float(normal.mean()),
        "mean_standard_error": deviation / math.sqrt(n),
        "std": deviation,
        "std_standard_error": 0.5 * deviation * math.sqrt(max(fourth - 1, 0.0) / n),
        "n": n,
    }


def accuracy_findings(measured: dict[str, Any], config: RewardDoctorConfig) -> list[Finding]:
    """The headline, then every source whose interval lies wholly under one half."""
    kinds = measured["kinds"]
    total = measured["accuracy"]
    if total["value"] is None:
        total = kinds["off_topic"]
    shown = f"{total['value']:.3f} [{total['low']:.3f}, {total['high']:.3f}] on {total['n']} held-out pairs"
    if total["n"] < config.least_pairs:
        first = Finding(
            "accuracy", "problem", shown, "So few pairs say next to nothing", "Name more preferences, or hold out more"
        )
    elif total["low"] <= 0.5:
        first = Finding(
            "accuracy",
            "problem",
            shown,
            "Chance is inside the interval: the model may know nothing of what is preferred",
            "Train on more pairs, or start from a better SFT model",
        )
    elif total["value"] < config.least_accuracy:
        first = Finding(
            "accuracy",
            "problem",
            shown,
            f"Under {config.least_accuracy}: PPO would mostly learn the errors",
            "Train on more pairs, or start from a better SFT model",
        )
    else:
        first = Finding("accuracy", "ok", shown)
    turned = [
        Finding(
            f"accuracy on {row['source']} ({row['kind']})",
            "problem",
            f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] on {row['n']} pairs",
            "The model prefers the worse reply more often than not: the columns may be swapped, or the source contradicts "
            "the others",
            "Look at the source with `duihua data show`",
        )
        for row in measured["sources"]
        if row["n"] and row["high"] < 0.5
    ]
    return [first, *turned]


def calibration_finding(measured: dict[str, Any], config: RewardDoctorConfig) -> Finding:
    """Whether the model is as often right as it is sure."""
    error = measured["calibration_error"]
    if error <= config.largest_calibration_error:
        return Finding("calibration", "ok", f"expected calibration error {error:.3f}")
    return Finding(
        "calibration",
        "problem",
        f"expected calibration error {error:.3f}",
        "The margins say more than the model knows, and PPO climbs the margins",
        "One epoch, a lower learning rate, or more pairs",
    )


def length_findings(measured: dict[str, Any], config: RewardDoctorConfig) -> list[Finding]:
    """Whether the reward mostly counts tokens: among the replies of the pairs, among the policy's own, and in the pairs."""
    findings = []
    own = measured.get("length_correlation_of_the_policy")
    for check, related in (
        ("length, replies of the pairs", measured["length_correlation"]),
        ("length, own replies", own),
    ):
        if related is None:
            continue
        found = f"correlation of reward and length {related:+.3f}"
        if abs(related) <= config.largest_length_correlation:
            findings.append(Finding(check, "ok", found))
            continue
        way = "longer" if related > 0 else "shorter"
        findings.append(
            Finding(
                check,
                "problem",
                found,
                f"PPO would learn to be {way} before it learns to be better",
                f"Balance the pairs by length, or add pairs in which the {way} reply is the worse one",
            )
        )
    share = measured["chosen_is_longer"]
    found = f"the better reply of a pair is the longer one in {share:.0%}"
    if abs(share - 0.5) <= config.largest_length_bias or not measured["margins"]:
        return [*findings, Finding("length, pairs", "ok", found)]
    way = "longer" if share > 0.5 else "shorter"
    meaning = f"Being {way} goes with being better in the pairs themselves: a model can learn that instead"
    return [*findings, Finding("length, pairs", "note", found, meaning, "Draw the pairs so that both are as long")]


def probe_findings(probes: dict[str, dict[str, Any]], config: RewardDoctorConfig) -> list[Finding]:
    """One finding a probe: does the true reply beat its spoilt copy?"""
    if not probes:
        return [Finding("probes", "note", "no held-out conversations to probe with", remedy="Name conversations")]
    findings = []
    for name, found in probes.items():
        value, n = float(found["value"]), int(found["n"])
        interval = wilson(round(value * n), n)
        shown = (
            f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}] of {n} true replies beat: {found['description']}"
        )
        state: State = "problem" if interval.high < 0.5 else "note" if value < config.least_probe else "ok"
        meaning = {
            "problem": "The spoilt reply is liked better: PPO will find it",
            "note": "The model hardly tells the two apart: nothing holds PPO back from it",
        }.get(state, "")
        pairs = "Set cut_short_pairs" if name == "cut_short" else "Add pairs that spoil replies in this way"
        remedy = f"{pairs}, or raise kl_coefficient" if meaning else ""
        findings.append(Finding(f"probe {name}", state, shown, meaning, remedy))
    return findings


def normalisation_finding(
    normalisation: Normalisation | None,
    checked: dict[str, float | int],
    at_training: dict[str, Any],
    config: RewardDoctorConfig,
) -> Finding:
    """Whether the stored normalisation holds on fresh replies of the policy."""
    if normalisation is None:
        return Finding(
            "normalisation",
            "problem",
            "none stored",
            "The reward's unit is unknown, and with it what kl_coefficient and missing_end_value weigh",
            "Train the reward model with `duihua reward`",
        )
    figures = checked or at_training
    if not figures:
        return Finding("normalisation", "note", "stored, and not verified", remedy="Name the policy with --policy")
    off_mean, off_std = abs(figures["mean"]), abs(figures["std"] - 1)
    shown = (
        f"mean {figures['mean']:+.3f} +- {figures['mean_standard_error']:.3f}, deviation {figures['std']:.3f} "
        f"+- {figures['std_standard_error']:.3f} on {figures['n']} "
        + ("fresh held-out replies" if checked else "other replies, when it was trained")
    )
    by_chance = (
        off_mean <= config.standard_errors * figures["mean_standard_error"]
        and off_std <= config.standard_errors * figures["std_standard_error"]
    )
    if by_chance:
        return Finding("normalisation", "ok", shown)
    state: State = "problem" if max(off_mean, off_std) > config.largest_offset else "note"
    return Finding(
        "normalisation",
        state,
        shown,
        "On these replies the reward is not mean 0 and deviation 1: another policy or other prompts than it was set on",
        "Train the reward model from the policy that PPO starts from, on the prompts that PPO asks",
    )
