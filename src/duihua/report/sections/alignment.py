"""The reward model and PPO: accuracy per kind of pair with its interval, and what optimising the reward changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import (
    both,
    either,
    estimate,
    folded,
    heading,
    joined,
    note,
    number,
    said,
    signed,
    t,
    table,
)
from duihua.report.figures import Series, Whisker, line_chart, whisker_chart
from duihua.report.run_record import RunRecord, dig, finite
from duihua.report.texts import TEXTS

SAMPLES_OPEN = 4


def reward_model(record: RunRecord) -> Markup | None:
    """Accuracy per kind of pair, and how far the rewards can be trusted."""
    result = record.result("reward")
    if not result:
        return None
    kinds = [(name, kind) for name, kind in (result.get("kinds") or {}).items() if isinstance(kind, Mapping)]
    rows = [(_kind_name(name), kind, name != "off_topic") for name, kind in kinds]
    if isinstance(result.get("accuracy"), Mapping):
        rows.insert(0, (Markup("<b>{}</b>").format(t("reward.counted")), result["accuracy"], True))
    whiskers = [_whisker(label, kind, counted) for label, kind, counted in rows]
    drawn = [whisker for whisker in whiskers if whisker is not None]
    parts = [note(t("reward.note"))]
    if drawn:
        lowest = 0.3 if all(whisker.low >= 0.3 for whisker in drawn) else 0.0
        parts.append(whisker_chart(drawn, lowest, 1.0, 0.5, t("reward.chance")))
    cells = [
        (label, number(kind.get("value")), _interval(kind), number(kind.get("n")), _description(kind))
        for label, kind, _ in rows
    ]
    columns = [t(f"column.{name}") for name in ("kind", "accuracy", "interval", "pairs", "about")]
    if cells:
        parts.append(table(columns, cells, "nrrrw"))
    parts += _probes(result)
    facts = [
        (t("reward.calibration"), estimate(result.get("calibration_error")), ""),
        (t("reward.length"), estimate(result.get("length_correlation")), t("reward.length.note")),
        (t("reward.normalisation"), _mean_and_spread(result.get("normalisation")), t("reward.normalisation.note")),
    ]
    parts.append(table((t("ppo.measure"), t("column.value"), t("column.about")), facts, "nrw"))
    return joined(parts)


def _probes(result: Mapping[str, Any]) -> list[Markup]:
    probes = [(name, found) for name, found in (result.get("probes") or {}).items() if isinstance(found, Mapping)]
    if not probes:
        return []
    rows = [
        (
            t(f"probe.{name}") if f"probe.{name}" in TEXTS else either(found.get("description") or name),
            number(found.get("value")),
            _interval(found),
            number(found.get("n")),
        )
        for name, found in probes
    ]
    columns = (t("column.spoilt"), t("column.accuracy"), t("column.interval"), t("column.pairs"))
    return [heading(t("reward.probes")), note(t("reward.probes.note")), table(columns, rows, "nrrr")]


def ppo(record: RunRecord) -> Markup | None:
    """Before and after PPO: numbers, the cloud of prompts, and replies with their rewards."""
    result = record.result("ppo")
    if not result:
        return None
    rows = [
        _change(t("ppo.reward"), result.get("reward_before"), result.get("reward_after"), 3),
        _change(t("ppo.length"), dig(result, "length.before"), dig(result, "length.after"), 1),
        _change(t("ppo.eos"), dig(result, "eos_rate.before"), dig(result, "eos_rate.after"), 3),
        _change(t("ppo.repetition"), dig(result, "repetition_rate.before"), dig(result, "repetition_rate.after"), 3),
        (t("ppo.gain"), "", "", estimate(result.get("reward_gain"))),
        (t("ppo.kl"), "", "", estimate(result.get("kl_nats"))),
    ]
    columns = (t("ppo.measure"), t("model.before"), t("model.after"), t("ppo.change"))
    parts = [note(t("ppo.note", n=number(dig(result, "reward_gain.n")))), table(columns, rows, "nrrr")]
    samples = [sample for sample in result.get("samples") or [] if isinstance(sample, Mapping)]
    parts += _scatter(samples)
    if samples:
        parts.append(heading(t("ppo.samples")))
        parts += [_sample(sample) for sample in samples[:SAMPLES_OPEN]]
        others = samples[SAMPLES_OPEN:]
        if others:
            parts.append(folded(t("ppo.more_samples", count=len(others)), joined(_sample(sample) for sample in others)))
    return joined(parts)


def _kind_name(name: str) -> Markup:
    key = f"reward.kind.{name}"
    return t(key) if key in TEXTS else escape(name)


def _description(kind: Mapping[str, Any]) -> Markup:
    english = kind.get("description") or ""
    return both(english, kind.get("description_zh") or english)


def _whisker(label: Markup, kind: Mapping[str, Any], counted: bool) -> Whisker | None:
    value, low, high = (finite(kind.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return None
    return Whisker(label, value, value if low is None else low, value if high is None else high, counted)


def _interval(kind: Mapping[str, Any]) -> str:
    low, high = finite(kind.get("low")), finite(kind.get("high"))
    return "–" if low is None or high is None else f"{number(low)} – {number(high)}"


def _mean_and_spread(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "–"
    return f"{number(value.get('mean'))} ± {number(value.get('std'))}"


def _change(name: Markup, before: Any, after: Any, digits: int) -> tuple[object, ...]:
    first, second = finite(before), finite(after)
    difference = signed(second - first, digits) if first is not None and second is not None else "–"
    return (name, number(before, digits), number(after, digits), difference)


def _scatter(samples: Sequence[Mapping[str, Any]]) -> list[Markup]:
    pairs = [(finite(sample.get("reward_before")), finite(sample.get("reward_after"))) for sample in samples]
    points = [(before, after) for before, after in pairs if before is not None and after is not None]
    if len(points) < 16:
        return []
    better = sum(1 for before, after in points if after > before)
    chart = line_chart(
        t("ppo.scatter"),
        t("model.after"),
        [Series(points, "dots")],
        x_label=t("model.before"),
        diagonal=True,
        summary=t("ppo.scatter.note", better=better, n=len(points)),
    )
    return [Markup('<div class="charts">{}</div>').format(chart)]


def _sample(sample: Mapping[str, Any]) -> Markup:
    extras = [
        t(key, value=number(sample[name], 2))
        for name, key in (("kl", "ppo.kl_short"), ("total", "ppo.total"))
        if finite(sample.get(name)) is not None
    ]
    after = [t("ppo.score", value=number(sample.get("reward_after"), 2)), *extras]
    return Markup(
        '<div class="sample"><p class="prompt">{}</p><div class="replies two">'
        '<div><h4>{}</h4><p>{}</p><footer>{}</footer></div><div class="chosen"><h4>{}</h4><p>{}</p><footer>{}</footer></div>'
        "</div></div>"
    ).format(
        said(sample.get("prompt")),
        t("model.before"),
        said(sample.get("text_before")),
        t("ppo.score", value=number(sample.get("reward_before"), 2)),
        t("model.after"),
        said(sample.get("text_after")),
        Markup(" · ").join(after),
    )
