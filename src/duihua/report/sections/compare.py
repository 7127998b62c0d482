"""All models of a run beside each other: the same prompts, who wins against whom, at what cost, and where it got worse.

Why letters: a table of seven models by seven does not fit a phone with their names on both sides, and the points of a chart
stand too close for names. So each model has a letter, the same in the table of wins, in the chart and in the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import (
    dialogue,
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
from duihua.report.run_record import RunRecord, dig, finite
from duihua.report.texts import TEXTS

PROMPTS_OPEN = 4
WORSE_OPEN = 2


def compare(record: RunRecord) -> Markup | None:
    """Time machine, wins, the table against the fine-tuned model, and the replies that got worse."""
    result = record.result("compare")
    if not result:
        return None
    return joined(
        [
            *_machine(result),
            *_wins(result),
            *_against(result),
            *_worse(result),
        ]
    )


def model_name(name: str, result: Mapping[str, Any]) -> Markup:
    """A model's name in both languages."""
    if name == "best_of_n":
        return t("model.best_of_n", n=number(result.get("best_of")))
    return t(f"model.{name}") if f"model.{name}" in TEXTS else escape(name)


def letters(result: Mapping[str, Any]) -> dict[str, str]:
    """Model to letter, in the order of training."""
    return {str(name): chr(ord("A") + place) for place, name in enumerate(result.get("models") or [])}


def lettered(name: str, result: Mapping[str, Any]) -> Markup:
    """A model's letter and name."""
    return Markup('<b class="letter">{}</b>{}').format(letters(result).get(name, ""), model_name(name, result))


def _machine(result: Mapping[str, Any]) -> list[Markup]:
    found = [one for one in result.get("time_machine") or [] if isinstance(one, Mapping)]
    if not found:
        return []
    shown = [_prompt(one, result) for one in found]
    parts = [
        heading(t("compare.machine")),
        note(t("compare.machine.note", temperature=number(result.get("sample_temperature"), 1))),
        *shown[:PROMPTS_OPEN],
    ]
    others = shown[PROMPTS_OPEN:]
    if others:
        parts.append(folded(t("compare.more_prompts", count=len(others)), joined(others)))
    return parts


def _prompt(one: Mapping[str, Any], result: Mapping[str, Any]) -> Markup:
    replies = one.get("replies") or {}
    columns = joined(
        Markup("<div><h4>{}</h4><p>{}</p></div>").format(model_name(name, result), said(replies.get(name)))
        for name in letters(result)
        if name in replies
    )
    return Markup('<div class="sample">{}<div class="replies many">{}</div></div>').format(
        dialogue(one.get("messages"), one.get("prompt")), columns
    )


def _wins(result: Mapping[str, Any]) -> list[Markup]:
    cells = {
        (str(one.get("model")), str(one.get("over"))): one
        for one in result.get("matrix") or []
        if isinstance(one, Mapping)
    }
    names = list(letters(result))
    if not cells:
        return []
    head = Markup("").join(
        Markup('<th scope="col"><b class="letter">{}</b><span class="wide">{}</span></th>').format(
            letters(result)[name], model_name(name, result)
        )
        for name in names[:-1]
    )
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            lettered(name, result),
            Markup("").join(_cell(cells.get((name, other))) for other in names[:-1]),
        )
        for name in names[1:]
    )
    n = next(iter(cells.values())).get("n")
    return [
        heading(t("compare.matrix")),
        note(t("compare.note", n=number(n))),
        note(_judge(result)),
        Markup(
            '<div class="scroll" tabindex="0"><table class="wins"><thead><tr><td></td>{}</tr></thead>'
            "<tbody>{}</tbody></table></div>"
        ).format(head, rows),
        note(t("compare.matrix.note")),
    ]


def _judge(result: Mapping[str, Any]) -> Markup:
    if result.get("judge_is_the_training_reward"):
        return t("compare.judge.same")
    accuracy = result.get("judge_accuracy")
    if result.get("judge") == "reward" and isinstance(accuracy, Mapping):
        return t(
            "compare.judge.known",
            value=number(accuracy.get("value")),
            low=number(accuracy.get("low")),
            high=number(accuracy.get("high")),
        )
    return t("compare.judge.reward" if result.get("judge") == "reward" else "compare.judge.rules")


def _cell(found: Mapping[str, Any] | None) -> Markup:
    """A share of wins in per cent with its interval; heavy where all of it is above a half, pale where all of it is below."""
    if found is None:
        return Markup('<td class="empty"></td>')
    value, low, high = (finite(found.get(key)) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return Markup("<td>–</td>")
    look = "won" if low > 0.5 else "lost" if high < 0.5 else "open"
    return Markup('<td class="{}">{}<span class="second-line">{}–{}</span></td>').format(
        look, *(f"{100 * share:.0f}" for share in (value, low, high))
    )


def _against(result: Mapping[str, Any]) -> list[Markup]:
    """Two tables: what the judge says and what it cost, and what the judge does not see."""
    found = result.get("against_reference")
    measured = (
        {str(name): one for name, one in found.items() if isinstance(one, Mapping)}
        if isinstance(found, Mapping)
        else {}
    )
    if not measured:
        return []
    verdicts = [
        (
            lettered(name, result),
            _percent(one.get("win_rate")),
            _signed_estimate(one.get("judge_gain")),
            ("≤ " if name == "best_of_n" else "") + number(one.get("kl_nats"), 2),
        )
        for name, one in measured.items()
    ]
    unseen = (("length", _tenths), ("repetition_rate", rate), ("eos_rate", number))
    first = next(iter(measured.values()))
    reference = lettered(str(result.get("reference")), result)
    rows = [(reference, *(show(dig(first, f"{measure}.before")) for measure, show in unseen))]
    rows += [
        (
            lettered(name, result),
            *(
                with_note(show(dig(one, f"{measure}.after")), _signed_estimate(dig(one, f"{measure}.change"), show))
                for measure, show in unseen
            ),
        )
        for name, one in measured.items()
    ]
    columns = [t(f"compare.{name}") for name in ("wins", "gain", "kl", "length", "repetition", "ended")]
    return [
        heading(t("compare.against")),
        note(t("compare.against.note")),
        table([t("column.model"), *columns[:3]], verdicts, "nrrr"),
        note(t("compare.unseen.note")),
        table([t("column.model"), *columns[3:]], rows, "nrrr"),
    ]


def _tenths(value: Any) -> str:
    """A number of tokens with one place, also where that is 0.0."""
    real = finite(value)
    return number(value) if real is None else f"{real:.1f}".replace("-", "−")


def _percent(found: Any) -> Markup:
    if not isinstance(found, Mapping) or finite(found.get("value")) is None:
        return Markup("–")
    value, low, high = (100 * (finite(found.get(key)) or 0.0) for key in ("value", "low", "high"))
    return with_note(f"{value:.1f}%", f"{low:.1f}–{high:.1f}")


def _signed_estimate(found: Any, show: Any = number) -> Markup:
    if not isinstance(found, Mapping) or finite(found.get("value")) is None:
        return Markup("–")
    value = finite(found["value"]) or 0.0
    text = ("+" if value > 0 else "") + show(value)
    error = finite(found.get("standard_error"))
    return escape(text) if error is None else Markup('{} <span class="muted">± {}</span>').format(text, show(error))


def _worse(result: Mapping[str, Any]) -> list[Markup]:
    found = result.get("worse")
    if not isinstance(found, Mapping):
        return []
    parts: list[Markup] = []
    for name, samples in found.items():
        listed = [sample for sample in samples if isinstance(sample, Mapping)]
        if not listed:
            continue
        shown = [_sample(sample, name, result) for sample in listed]
        parts.append(Markup("<h4>{}</h4>").format(lettered(name, result)))
        parts += shown[:WORSE_OPEN]
        if shown[WORSE_OPEN:]:
            parts.append(folded(t("compare.more_worse", count=len(shown) - WORSE_OPEN), joined(shown[WORSE_OPEN:])))
    return [heading(t("compare.worse")), note(t("compare.worse.note")), *parts] if parts else []


def _sample(sample: Mapping[str, Any], name: str, result: Mapping[str, Any]) -> Markup:
    sides: Sequence[tuple[Markup, str]] = (
        (model_name(str(result.get("reference")), result), "before"),
        (model_name(name, result), "after"),
    )
    columns = joined(
        Markup("<div><h4>{}</h4><p>{}</p><footer>{}</footer></div>").format(
            label, said(sample.get(f"text_{side}")), t("compare.score", value=signed(sample.get(f"judge_{side}"), 2))
        )
        for label, side in sides
    )
    return Markup('<div class="sample">{}<div class="replies two">{}</div></div>').format(
        dialogue(sample.get("messages"), sample.get("prompt")), columns
    )
