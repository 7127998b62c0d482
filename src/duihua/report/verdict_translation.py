"""Is a translator's loss normal? Rules with their limits, for the runs that train one.

Three things mislead here, and each has a line. The training loss of smoothed targets cannot fall to zero: with a share e of
each target spread over v tokens its least value is the entropy of the target itself,

    H = -(1 - e + e/v) ln(1 - e + e/v) - (v - 1) (e/v) ln(e/v),          1.2 nats for e = 0.1 and v = 8,000

so it is the unsmoothed loss that compares, and with the held-out one. Perplexity may rise while translations still become
better, so both are looked at. And BLEU is no percentage of right sentences: over 30 it generally reflects understandable,
over 50 good and fluent translations (A. Lavie, "Evaluating the Output of Machine Translation Systems", AMTA 2010 tutorial).
Limits: a gap of 0.7 nats between held-out and training loss is learning by heart, as in fine-tuning; a fall of one BLEU point
from the best evaluation is a decline, a rise of half a point over the last one is not the end.
"""

from __future__ import annotations

import math

from duihua.report.components import number, signed, t
from duihua.report.run_record import RunRecord, StageRecord, dig, finite
from duihua.report.verdict_alignment import Check

UNDERSTANDABLE = 30.0
"""BLEU; see above."""
BY_HEART_NATS = 0.7
DECLINE, RISE = 1.0, 0.5
"""BLEU points: below the best evaluation at the end; over the last evaluation."""


def translation_verdict(record: RunRecord) -> Check | None:
    """The answer about the last translator of a run; None where it has none."""
    stage = record.stage("translate")
    if stage is None:
        return None
    result = stage.result
    kept = dig(result, f"candidates.{result.get('kept')}")
    loss, ids = dig(kept, "validation_loss"), finite(result.get("vocabulary_size"))
    if loss is None or ids is None:
        return Check("watch", t("normal.translate.unknown"))
    perplexity, score = finite(dig(kept, "validation_perplexity")), finite(dig(kept, "validation_bleu"))
    if finite(loss) is None or perplexity is None or score is None:
        return Check("bad", t("normal.broken"))
    values = {"perplexity": number(perplexity, 1), "ids": number(int(ids)), "bleu": number(score, 1)}
    if perplexity >= ids:
        return Check("bad", t("normal.translate.nothing", **values))
    if score < UNDERSTANDABLE:
        return Check("watch", t("normal.translate.low", **values))
    return Check("good", t("normal.translate", **values))


def translation_checks(record: RunRecord) -> list[Check]:
    """What else can be read off the last translator: its start, its smoothing, held-out against training, BLEU over time."""
    stage = record.stage("translate") or next((one for one in record.stages if one.stage == "translate"), None)
    if stage is None:
        return []
    found = [_start(stage), _floor(stage), _gap(stage), _bleu(stage)]
    return [check for check in found if check is not None]


def smoothing_floor(smoothing: float, ids: int) -> float:
    """The least loss in nats of targets of which a share is spread evenly over `ids` tokens: their own entropy."""
    spread = smoothing / ids
    right = 1 - smoothing + spread
    return -right * math.log(right) - ((ids - 1) * spread * math.log(spread) if spread else 0.0)


def _start(stage: StageRecord) -> Check | None:
    ids = finite(stage.result.get("vocabulary_size"))
    first = next(
        ((row["step"], row["plain_loss"]) for row in stage.rows if finite(row.get("plain_loss")) is not None), None
    )
    if not ids or first is None:
        return None
    uniform, (step, loss) = math.log(ids), first
    values = {"value": number(loss, 2), "expected": f"{uniform:.2f}", "step": int(step)}
    if loss > uniform + 0.5:
        return Check("watch", t("check.start_high", **values))
    return Check("good", t("check.start" if loss > uniform - 0.5 else "check.start_low", **values))


def _floor(stage: StageRecord) -> Check | None:
    smoothing, ids = finite(stage.config.get("label_smoothing")), finite(stage.result.get("vocabulary_size"))
    loss, plain = finite(stage.result.get("loss")), finite(stage.result.get("plain_loss"))
    if not smoothing or not ids or loss is None or plain is None:
        return None
    values = {
        "loss": number(loss, 2),
        "plain": number(plain, 2),
        "floor": f"{smoothing_floor(smoothing, int(ids)):.2f}",
    }
    return Check("good", t("check.smoothing", smoothing=f"{smoothing:g}", **values))


def _gap(stage: StageRecord) -> Check | None:
    plain, heldout = (_last(stage, name) for name in ("plain_loss", "validation_loss"))
    if plain is None or heldout is None:
        return None
    values = {"loss": number(plain, 2), "heldout": number(heldout, 2), "gap": signed(heldout - plain, 2)}
    by_heart = heldout - plain > BY_HEART_NATS
    return Check(
        "watch" if by_heart else "good", t("check.translate_overfit" if by_heart else "check.translate_fits", **values)
    )


def _bleu(stage: StageRecord) -> Check | None:
    scores = [score for row in stage.rows if (score := finite(row.get("validation_bleu"))) is not None]
    if len(scores) < 2:
        return None
    best, last = max(scores), scores[-1]
    values = {"best": number(best, 1), "last": number(last, 1)}
    if last < best - DECLINE:
        return Check("watch", t("check.bleu_declined", **values))
    rising = last == best and last - scores[-2] > RISE
    return Check("good", t("check.bleu_rising" if rising else "check.bleu_level", **values))


def _last(stage: StageRecord, name: str) -> float | None:
    return next((value for row in stage.rows[::-1] if (value := finite(row.get(name))) is not None), None)
