"""Is my loss normal? The answer of a run, in plain sentences.

Why rules and not a model: each line names the number it looked at and the limit it used, so a student can disagree. The
expected range comes from the pre-training stage (measured for the recipe); the other limits are:
a fresh softmax over v tokens costs ln(v) nats; a change under 0.02 nats over the last fifth of training is level; one
nat above the moving average is a jump; a gap of 0.7 nats between held-out and training loss is learning by heart; a
classifier's interval must lie above the most frequent class. The reward model and PPO have rules of their own
(`verdict_alignment`), and so have translators (`verdict_translation`).
"""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from markupsafe import Markup

from duihua.report.components import number, signed, stage_name, t
from duihua.report.figures import range_chart, smooth
from duihua.report.run_record import RunRecord, StageRecord, dig, finite
from duihua.report.verdict_alignment import Check, alignment_checks
from duihua.report.verdict_translation import translation_checks, translation_verdict


def expected_range(record: RunRecord) -> tuple[float, float] | None:
    """The range of held-out bits per byte that the recipe usually ends in, where the stage states one."""
    stated = dig(record.result("pretrain"), "expected.bits_per_byte")
    if isinstance(stated, list | tuple) and len(stated) == 2:
        low, high = finite(stated[0]), finite(stated[1])
        if low is not None and high is not None and low < high:
            return low, high
    return None


def loss_verdict(record: RunRecord) -> Check | None:
    """The answer about pre-training, or about a translator; None where the run has neither's result."""
    stated = dig(record.result("pretrain"), "bits_per_byte.all")
    if not record.result("pretrain"):
        return translation_verdict(record)
    value = finite(stated)
    if value is None and record.result("pretrain").get("heldout_bytes") == 0:
        return Check("watch", t("normal.unmeasured"))
    if value is None:
        altered = stated is None and finite(dig(record.result("pretrain"), "perplexity.all")) is not None
        return Check("watch", t("normal.altered")) if altered else Check("bad", t("normal.broken"))
    bounds = expected_range(record)
    if bounds is None:
        return Check("watch", t("normal.no_range", value=number(value)))
    values = {"value": number(value), "low": f"{bounds[0]:.2f}", "high": f"{bounds[1]:.2f}"}
    if value > bounds[1]:
        return Check("bad" if value > bounds[1] + 0.5 else "watch", t("normal.above", **values))
    return (
        Check("watch", t("normal.below", **values))
        if value < bounds[0]
        else Check("good", t("normal.inside", **values))
    )


def range_figure(record: RunRecord) -> Markup | None:
    """The verdict as a picture, where there is a number and a range."""
    value, bounds = finite(dig(record.result("pretrain"), "bits_per_byte.all")), expected_range(record)
    if value is None or bounds is None:
        return None
    return range_chart(value, *bounds, t("normal.expected"), t("normal.here"))


def checks(record: RunRecord) -> list[Check]:
    """Everything else that can be read off a run without knowing its data."""
    found = [_start(record)]
    for kind in ("pretrain", "recurrent", "translate", "sft"):
        stage = record.stage(kind) or next((one for one in record.stages if one.stage == kind), None)
        if stage is not None:
            found += _curve(stage)
    found.append(_gap(record))
    found += [_classes(stage) for stage in record.stages if stage.stage in ("classify", "bag_of_words")]
    return [check for check in (*found, *translation_checks(record), *alignment_checks(record)) if check is not None]


def _start(record: RunRecord) -> Check | None:
    stage, uniform = record.stage("pretrain"), finite(dig(record.result("pretrain"), "expected.first_loss"))
    losses = _losses(stage) if stage else []
    if not losses or uniform is None:
        return None
    step, first = losses[0]
    values: dict[str, Any] = {"value": number(first, 2), "expected": f"{uniform:.2f}", "step": int(step)}
    vocabulary = finite(dig(record.result("pretrain"), "settings.vocabulary_size"))
    counted = "_bigrams" if vocabulary and uniform < math.log(vocabulary) - 0.1 else ""  # it knows more than nothing
    if first > uniform + 0.5:
        return Check("watch", t(f"check.start_high{counted}", **values))
    return Check("good", t(f"check.start{counted}" if first > uniform - 0.5 else f"check.start_low{counted}", **values))


def _curve(stage: StageRecord) -> list[Check]:
    name = t(f"stage.{stage.stage}")
    broken = sum(1 for row in stage.rows if "loss" in row and finite(row["loss"]) is None)
    found = [Check("bad", t("check.not_finite", stage=name, count=broken))] if broken else []
    skipped = finite(stage.result.get("skipped_steps"))
    if skipped:
        found.append(Check("watch", t("check.skipped", stage=name, count=number(int(skipped)))))
    losses = _losses(stage)
    if len(losses) < 20:
        return found
    average = smooth(losses, 0.05)
    # Medians of the two halves of the last fifth (one jump must not move them): half of the change over that fifth.
    tail = [y for _, y in losses[-max(4, len(losses) // 5) :]]
    middle = len(tail) // 2
    change = 2 * (median(tail[middle:]) - median(tail[:middle]))
    if change < -0.02:
        found.append(Check("good", t("check.falling", stage=name, fall=number(-change, 2))))
    elif change <= 0.05:
        found.append(Check("good", t("check.flat", stage=name, fall=signed(change, 2))))
    else:
        found.append(Check("watch", t("check.rising", stage=name, rise=number(change, 2))))
    # The steep fall at the very start is no jump: the first tenth is not looked at.
    late = range(len(losses) // 10, len(losses))
    jumps = sum(1 for i in late if losses[i][1] > average[i][1] + 1.0)
    if jumps:
        found.append(Check("watch", t("check.spikes", stage=name, count=jumps)))
    return found


def _gap(record: RunRecord) -> Check | None:
    loss, heldout = (finite(record.result("sft").get(key)) for key in ("loss", "heldout_loss"))
    if loss is None or heldout is None:
        return None
    values = {"loss": number(loss, 2), "heldout": number(heldout, 2), "gap": number(heldout - loss, 2)}
    return (
        Check("watch", t("check.overfit", **values))
        if heldout - loss > 0.7
        else Check("good", t("check.fits", **values))
    )


def _classes(stage: StageRecord) -> Check | None:
    low, majority = (finite(dig(stage.result, key)) for key in ("accuracy.low", "baseline.accuracy.value"))
    if low is None or majority is None:
        return None
    values = {"stage": stage_name(stage), "low": number(low), "majority": number(majority)}
    return (
        Check("good", t("check.classify", **values))
        if low > majority
        else Check("watch", t("check.classify_chance", **values))
    )


def _losses(stage: StageRecord) -> list[tuple[float, float]]:
    found = [(finite(row.get("step")), finite(row.get("loss"))) for row in stage.rows]
    return [(step, loss) for step, loss in found if step is not None and loss is not None]
