"""What the reward model and PPO did besides raising the reward: the second half of the report's checks.

Why so many on PPO: it climbs whatever the reward model pays for, and a higher reward alone says nothing about better
replies. So each line looks at something that the reward does not see. The limits: two paired standard errors are the
usual line between a gain and chance; 10 nats of KL is the recipe's own limit; a probe below one half means that the
spoilt reply is preferred; a mean length that moved by more than three tenths is another way of talking; one point of BLEU
is about what two samplings of one model differ by; one greeting fewer is said, since they are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from duihua.report.components import both, either, number, rate, t
from duihua.report.run_record import RunRecord, dig, finite
from duihua.report.texts import TEXTS

Status = Literal["good", "watch", "bad"]


@dataclass(frozen=True)
class Check:
    """One thing looked at: how it stands and the sentence that says so."""

    status: Status
    text: Markup


def alignment_checks(record: RunRecord) -> list[Check | None]:
    """Checks of the reward model, of PPO, and of PPO against what was measured without the reward; None for what is not
    there."""
    return [
        _reward(record),
        _judged_pairs(record),
        _probes(record),
        _gain(record),
        _kl(record),
        _length(record),
        _repetition(record),
        _bleu(record),
        _greetings(record),
    ]


def probe_name(name: str, description: object) -> Markup:
    """What a probe does to a reply, in both languages where it is one of ours."""
    return t(f"probe.{name}") if f"probe.{name}" in TEXTS else either(description or name)


def _reward(record: RunRecord) -> Check | None:
    low = finite(dig(record.result("reward"), "accuracy.low"))
    if low is None:
        return None
    if low > 0.5:
        return Check("good", t("check.reward", low=number(low)))
    return Check("bad", t("check.reward_chance", low=number(low)))


def _judged_pairs(record: RunRecord) -> Check | None:
    """Of the pairs that people judged alone, where the accuracy of all is above chance: those with sampled replies are easy
    and can carry the mean."""
    result = record.result("reward")
    together = finite(dig(result, "accuracy.low"))
    value, low, high, count = (finite(dig(result, f"kinds.human.{key}")) for key in ("value", "low", "high", "n"))
    if together is None or together <= 0.5 or value is None or low is None or high is None or not count or low > 0.5:
        return None
    values = {"value": number(value), "low": number(low), "high": number(high)}
    return Check("watch", t("check.reward_human", n=number(int(count)), **values))


def _probes(record: RunRecord) -> Check | None:
    probes = record.result("reward").get("probes")
    values = {
        name: (value, found.get("description"))
        for name, found in (probes.items() if isinstance(probes, Mapping) else ())
        if (value := finite(dig(found, "value"))) is not None
    }
    if not values:
        return None
    low = sorted((value, name, description) for name, (value, description) in values.items() if value < 0.5)
    if not low:
        return Check("good", t("check.probes", count=len(values)))
    named = both("; ", "；").join(
        t("check.probe", name=probe_name(name, description), value=number(value)) for value, name, description in low
    )
    return Check("watch", t("check.probes_low", probes=named))


def _gain(record: RunRecord) -> Check | None:
    gain, error = (finite(dig(record.result("ppo"), f"reward_gain.{key}")) for key in ("value", "standard_error"))
    if gain is None or error is None or error <= 0:
        return None
    ratio = number(gain / error, 1)
    if gain >= 2 * error:
        return Check("good", t("check.gain", ratio=ratio))
    return Check("watch", t("check.gain_small", ratio=ratio))


def _kl(record: RunRecord) -> Check | None:
    kl = finite(record.result("ppo").get("kl_nats"))
    if kl is None:
        return None
    if kl < 10:
        return Check("good", t("check.kl", kl=number(kl, 2)))
    return Check("bad", t("check.kl_far", kl=number(kl, 2)))


def _length(record: RunRecord) -> Check | None:
    before, after = _before_after(record, "length")
    if before is None or after is None or before <= 0:
        return None
    values = {"before": number(before, 1), "after": number(after, 1)}
    if after < 0.7 * before:
        return Check("watch", t("check.shorter", **values))
    if after > 1.3 * before:
        return Check("watch", t("check.longer", **values))
    return Check("good", t("check.length", **values))


def _repetition(record: RunRecord) -> Check | None:
    """Of the evaluation, which has several replies to each prompt and says how much of the change is chance; else of PPO's."""
    result = record.result("evaluate")
    before, after = (finite(dig(result, f"repetition_rate.{name}")) for name in ("sft", "ppo"))
    error = finite(dig(result, "repetition_change.standard_error"))
    if before is None or after is None or error is None:
        before, after = _before_after(record, "repetition_rate")
        error = 0.0
    if before is None or after is None:
        return None
    values = {"before": rate(before), "after": rate(after)}
    if after <= before:
        return Check("good", t("check.repetition", **values))
    if after - before <= 2 * error:
        return Check("good", t("check.repetition_chance", **values, error=rate(error)))
    return Check("watch", t("check.repetition_up", **values))


def _bleu(record: RunRecord) -> Check | None:
    scores = record.result("evaluate").get("bleu_by_stage")
    before, after = (finite(dig(scores, f"{stage}.value")) for stage in ("sft", "ppo"))
    if before is None or after is None:
        return None
    values = {"before": number(before, 1), "after": number(after, 1)}
    if after < before - 1:
        return Check("watch", t("check.bleu_down", **values))
    return Check("good", t("check.bleu" if after >= before else "check.bleu_near", **values))


def _greetings(record: RunRecord) -> Check | None:
    """Greetings that match the data before and after PPO; fewer in either language is worth a look."""
    counts = record.result("evaluate").get("greetings_by_stage")
    lines, fewer = [], False
    for language in ("en", "zh"):
        (before, _), (after, total) = (_matched(dig(counts, f"{stage}.{language}")) for stage in ("sft", "ppo"))
        if before is None or after is None:
            continue
        fewer = fewer or after < before
        name = t(f"language.{language}")
        lines.append(t("check.greeting", language=name, before=before, after=after, total=total))
    if not lines:
        return None
    joined = both(", ", "，").join(lines)
    return (
        Check("watch", t("check.greetings_down", counts=joined))
        if fewer
        else Check("good", t("check.greetings", counts=joined))
    )


def _matched(pair: object) -> tuple[int | None, int | None]:
    """(matched, total) of a stage in a language, where it was counted."""
    if isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(one, int) for one in pair):
        return pair[0], pair[1]
    return None, None


def _before_after(record: RunRecord, name: str) -> tuple[float | None, float | None]:
    result = record.result("ppo")
    return finite(dig(result, f"{name}.before")), finite(dig(result, f"{name}.after"))
