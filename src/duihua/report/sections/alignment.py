"""The reward model and PPO: accuracy per kind of pair with its interval, and what optimising the reward changed.

What else the reward stage measured stands in reward_figures.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import (
    both,
    dialogue,
    estimate,
    folded,
    heading,
    joined,
    note,
    number,
    rate,
    said,
    signed,
    t,
    table,
    with_note,
)
from duihua.report.figures import Series, Whisker, line_chart, whisker_chart
from duihua.report.run_record import RunRecord, dig, finite
from duihua.report.sections.reward_figures import by_source, charts, flag, kind_name, trust
from duihua.report.verdict_alignment import probe_name

SAMPLES_OPEN = 4


def reward_model(record: RunRecord) -> Markup | None:
    """Accuracy per kind of pair and per source, and how far the rewards can be trusted."""
    result = record.result("reward")
    if not result:
        return None
    kinds = [(name, kind) for name, kind in (result.get("kinds") or {}).items() if isinstance(kind, Mapping)]
    kinds = [(name, kind) for name, kind in kinds if kind.get("n") != 0]  # of what there is none nothing is known
    rows = [(kind_name(name), kind, name != "off_topic") for name, kind in kinds]
    if isinstance(result.get("accuracy"), Mapping):
        rows.insert(0, (Markup("<b>{}</b>").format(t("reward.counted")), result["accuracy"], True))
    whiskers = [_whisker(label, kind, counted) for label, kind, counted in rows]
    drawn = [whisker for whisker in whiskers if whisker is not None]
    parts = [note(t("reward.note"))]
    if drawn:
        lowest = 0.3 if all(whisker.low >= 0.3 for whisker in drawn) else 0.0
        parts.append(whisker_chart(drawn, lowest, 1.0, 0.5, t("reward.chance")))
    cells = [(with_note(label, _description(kind)), estimate(kind), number(kind.get("n"))) for label, kind, _ in rows]
    if cells:
        parts.append(table([t(f"column.{name}") for name in ("kind", "accuracy95", "pairs")], cells, "wrr"))
    parts += [*by_source(result), *_probes(result), heading(t("reward.figures")), *charts(result)]
    parts.append(table((t("ppo.measure"), t("column.value")), trust(result), "wr"))
    return joined(parts)


def _probes(result: Mapping[str, Any]) -> list[Markup]:
    probes = [(name, found) for name, found in (result.get("probes") or {}).items() if isinstance(found, Mapping)]
    if not probes:
        return []
    rows = [
        (
            probe_name(name, found.get("description")),
            Markup("{}{}").format(flag(_below_half(found)), estimate(found)),
            number(found.get("n")),
        )
        for name, found in probes
    ]
    columns = (t("column.spoilt"), t("column.accuracy95"), t("column.pairs"))
    return [heading(t("reward.probes")), note(t("reward.probes.note")), table(columns, rows, "nrr")]


def _below_half(found: Mapping[str, Any]) -> bool:
    value = finite(found.get("value"))
    return value is not None and value < 0.5


def ppo(record: RunRecord) -> Markup | None:
    """Before and after PPO: numbers, the cloud of prompts, and replies with their rewards."""
    result = record.result("ppo")
    if not result:
        return None
    rows = [
        _change(
            t("ppo.reward"), result.get("reward_before"), result.get("reward_after"), number, result.get("reward_gain")
        ),
        _change(t("ppo.length"), dig(result, "length.before"), dig(result, "length.after"), partial(number, digits=1)),
        _change(t("ppo.eos"), dig(result, "eos_rate.before"), dig(result, "eos_rate.after"), number),
        _change(t("ppo.repetition"), dig(result, "repetition_rate.before"), dig(result, "repetition_rate.after"), rate),
        (t("ppo.kl"), "0", estimate(result.get("kl_nats")), ""),
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


def _description(kind: Mapping[str, Any]) -> Markup:
    english = kind.get("description") or ""
    return both(english, kind.get("description_zh") or english)


def _whisker(label: Markup, kind: Mapping[str, Any], counted: bool) -> Whisker | None:
    value, low, high = (finite(kind.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return None
    return Whisker(label, value, value if low is None else low, value if high is None else high, counted)


def _change(
    name: Markup, before: Any, after: Any, shown: Callable[[Any], str], paired: Any = None
) -> tuple[object, ...]:
    """A row; `paired` is the change as it was measured prompt by prompt, with its standard error."""
    first, second = finite(before), finite(after)
    if isinstance(paired, Mapping) and finite(paired.get("value")) is not None:
        change = with_note(signed(paired["value"]), t("ppo.error", error=number(paired.get("standard_error"))))
    elif first is not None and second is not None:
        change = escape(("+" if second > first else "") + shown(second - first))
    else:
        change = escape("–")
    return (name, shown(before), shown(after), change)


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
        '<div class="sample">{}<div class="replies two">'
        '<div><h4>{}</h4><p>{}</p><footer>{}</footer></div><div class="chosen"><h4>{}</h4><p>{}</p><footer>{}</footer></div>'
        "</div></div>"
    ).format(
        dialogue(_messages(sample), sample.get("prompt")),
        t("model.before"),
        said(sample.get("text_before")),
        t("ppo.score", value=number(sample.get("reward_before"), 2)),
        t("model.after"),
        said(sample.get("text_after")),
        Markup(" · ").join(after),
    )


def _messages(sample: Mapping[str, Any]) -> Any:
    """The prompt as messages: in a key of their own, or as the prompt itself."""
    return sample.get("messages") or sample.get("prompt")
