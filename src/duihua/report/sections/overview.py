"""At a glance, and the question that everyone asks first: is my loss normal?"""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup, escape

from duihua.report.components import heading, joined, note, number, signed, t
from duihua.report.run_record import RunRecord, dig, finite
from duihua.report.sections.translation import direction_name
from duihua.report.texts import TEXTS
from duihua.report.verdict import checks, loss_verdict, range_figure
from duihua.report.verdict_alignment import Check

ICONS = {"good": "✓", "watch": "!", "bad": "✕"}


def headline(record: RunRecord) -> Markup | None:
    """The few numbers that tell how the run went, as cards."""
    cards = [
        _bits(record),
        _accuracy(record),
        _gain(record),
        _greetings(record),
        _classes(record),
        _translation(record),
    ]
    minutes, memory = finite(record.run.get("minutes")), finite(record.run.get("peak_memory_gib"))
    if minutes is not None:
        cards.append(_card(t("headline.minutes"), number(minutes, 1), t("headline.minutes.note")))
    if memory is not None:
        cards.append(_card(t("headline.memory"), number(memory, 2), t("headline.memory.note")))
    shown = [card for card in cards if card is not None]
    return Markup('<div class="cards">{}</div>').format(joined(shown)) if shown else None


def normal(record: RunRecord) -> Markup | None:
    """The verdict on the loss with its picture, and everything else that was checked."""
    verdict, others = loss_verdict(record), checks(record)
    if verdict is None and not others:
        return None
    parts = [note(t("normal.elsewhere")) if verdict is None else _line(verdict, "verdict")]
    figure = range_figure(record)
    if figure is not None:
        parts.append(figure)
    if others:
        parts.append(heading(t("normal.checks")))
        items = Markup("").join(Markup("<li>{}</li>").format(_line(check, "check")) for check in others)
        parts.append(Markup('<ul class="checks">{}</ul>').format(items))
    return joined(parts)


def _line(check: Check, name: str) -> Markup:
    return Markup(
        '<div class="{} {}"><b class="badge"><i aria-hidden="true">{}</i> {}</b><span>{}</span></div>'
    ).format(name, check.status, ICONS[check.status], t(f"status.{check.status}"), check.text)


def _card(label: Markup, value: object, note: Markup | str) -> Markup:
    return Markup('<div class="card"><span class="label">{}</span><b>{}</b><span class="note">{}</span></div>').format(
        label, value, note
    )


def _bits(record: RunRecord) -> Markup | None:
    bits = record.result("pretrain").get("bits_per_byte")
    if not isinstance(bits, Mapping) or "all" not in bits:
        return None
    languages = t("headline.bits.note", en=number(bits.get("en")), zh=number(bits.get("zh")))
    return _card(t("headline.bits"), number(bits["all"]), languages)


def _accuracy(record: RunRecord) -> Markup | None:
    accuracy = record.result("reward").get("accuracy")
    if not isinstance(accuracy, Mapping):
        return None
    interval = t("headline.accuracy.note", low=number(accuracy.get("low")), high=number(accuracy.get("high")))
    return _card(t("headline.accuracy"), number(accuracy.get("value")), interval)


def _classes(record: RunRecord) -> Markup | None:
    result = record.result("classify")
    value = finite(dig(result, "accuracy.value"))
    if value is None:
        return None
    majority = number(dig(result, "baseline.accuracy.value"))
    return _card(t("headline.classify"), number(value), t("headline.classify.note", majority=majority))


def _translation(record: RunRecord) -> Markup | None:
    """BLEU of the first direction's test, never without its signature."""
    tests = record.result("translate").get("test")
    direction, test = next(iter(tests.items()), ("", None)) if isinstance(tests, Mapping) else ("", None)
    if finite(dig(test, "bleu.value")) is None:
        return None
    note = t(
        "headline.translate.note",
        low=number(dig(test, "bleu_interval.low"), 1),
        high=number(dig(test, "bleu_interval.high"), 1),
        chrf=number(dig(test, "chrf.value"), 1),
        signature=Markup("<code>{}</code>").format(dig(test, "bleu.signature") or "–"),
    )
    return _card(t("headline.translate", direction=direction_name(direction)), number(dig(test, "bleu.value"), 1), note)


def _gain(record: RunRecord) -> Markup | None:
    gain = record.result("ppo").get("reward_gain")
    if not isinstance(gain, Mapping):
        return None
    note = t("headline.gain.note", error=number(gain.get("standard_error")), n=number(gain.get("n")))
    return _card(t("headline.gain"), signed(gain.get("value")), note)


def _greetings(record: RunRecord) -> Markup | None:
    counts = {
        language: (dig(record.result("evaluate"), f"greetings.{language}.matched"), total)
        for language in ("en", "zh")
        if (total := dig(record.result("evaluate"), f"greetings.{language}.total"))
    }
    if not counts:
        return None
    shown = {language: f"{matched}/{total}" for language, (matched, total) in counts.items()}
    matched, total = (sum(int(pair[i] or 0) for pair in counts.values()) for i in (0, 1))
    value = Markup("{}<small> / {}</small>").format(matched, total)
    by_stage = record.result("evaluate").get("greetings_by_stage")
    first = next(iter(by_stage), "sft") if isinstance(by_stage, Mapping) else "sft"  # whose replies the items are
    model = t(f"model.{first}") if f"model.{first}" in TEXTS else escape(first)
    note = t("headline.greetings.note", model=model, en=shown.get("en", "–"), zh=shown.get("zh", "–"))
    return _card(t("headline.greetings"), value, note)
