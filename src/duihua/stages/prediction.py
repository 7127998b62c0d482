"""What was predicted of a training and what came of it, as the terminal, result.json and the report say it.

A figure holds when what came is within 20 % of what was predicted; bits per byte hold when they end in the range that was
said, since 20 % of them is the difference between a model that has learnt and one that has not.
"""

from __future__ import annotations

from typing import Any

from duihua import console
from duihua.stages.dial_plan import GIB, HOLDS, MOST_EPOCHS, Plan

LABELS = {"minutes": "minutes", "memory_gib": "memory, GiB", "bits_per_byte": "held-out bits per byte"}


def say_plan(plan: Plan, epochs: float) -> None:
    """Print every derived setting and what the training will cost, before it starts."""
    config, measured = plan.config, plan.measured
    rows = [(name, _shown(value), "rule") for name, value in plan.derived.items() if name != "steps"]
    source = {"minutes": "minutes x measured speed", "tokens": "tokens", "budget": "operations"}
    horizon = next((text for name, text in source.items() if plan.asked.get(name) is not None), "stated")
    if "steps" in plan.derived:
        rows.append(("steps", _shown(config.steps), horizon))
    rows += [(name, "as stated", "stated") for name in plan.kept]
    chosen = plan.asked.get("size")
    how = "chosen by the law" if chosen in (None, "auto") else "as stated"
    console.table(f"pretrain: the dial stands at size {plan.size} ({how})", ("setting", "value", "from"), rows)
    console.say(
        f"pretrain: this machine trains {measured.tokens_per_second:,.0f} tokens a second "
        f"({measured.steps} updates timed, {measured.step_seconds:.3g} s each)"
    )
    bits = plan.bits
    said = f"{bits['bits']:.2f} ({bits['low']:.2f} to {bits['high']:.2f})" if bits else f"not predicted: {plan.silent}"
    console.table(
        "pretrain: what this will cost",
        ("figure", "predicted", "from"),
        [
            ("time", console.duration(plan.seconds), "measured"),
            (
                "  of it training, scoring",
                f"{console.duration(plan.training_seconds)}, {console.duration(measured.evaluation_seconds)}",
                "measured",
            ),
            ("memory", f"{measured.memory_bytes / GIB:.2f} GiB", "measured"),
            ("held-out bits per byte", said, "law" if bits else ""),
        ],
    )
    if epochs > MOST_EPOCHS:
        console.say(
            f"pretrain: the text will be read {epochs:.0f} times; beyond about {MOST_EPOCHS:.0f} it teaches little, and the "
            "law knows only new text"
        )


def outcome(plan: Plan, seconds: float, memory_bytes: int, bits: float | None) -> dict[str, Any]:
    """Predicted and achieved, figure by figure: {"minutes": {"predicted", "achieved", "ratio", "held"}, ...}, and "held" for
    all of them. seconds: of the whole stage over all its attempts."""
    figures = {
        "minutes": _compared(plan.seconds / 60, seconds / 60),
        "memory_gib": _compared(plan.measured.memory_bytes / GIB, memory_bytes / GIB),
    }
    if plan.bits is not None and bits is not None:
        of_bits = _compared(plan.bits["bits"], bits)
        low, high = plan.bits["low"], plan.bits["high"]
        figures["bits_per_byte"] = of_bits | {"low": low, "high": high, "held": low <= bits <= high}
    return {**figures, "held": all(figure["held"] for figure in figures.values())}


def say_outcome(found: dict[str, Any]) -> None:
    """Print predicted against achieved."""
    rows = []
    for name, label in LABELS.items():
        if name in found:
            figure = found[name]
            predicted = f"{figure['predicted']:.2f}"
            if "low" in figure:
                predicted += f" ({figure['low']:.2f} to {figure['high']:.2f})"
            change = f"{100 * (figure['ratio'] - 1):+.0f} %"
            rows.append((label, predicted, f"{figure['achieved']:.2f}", change, "yes" if figure["held"] else "no"))
    console.table("pretrain: predicted and achieved", ("figure", "predicted", "achieved", "difference", "held"), rows)


def _compared(predicted: float, achieved: float) -> dict[str, Any]:
    ratio = achieved / predicted if predicted else 0.0
    return {"predicted": predicted, "achieved": achieved, "ratio": ratio, "held": abs(ratio - 1) <= HOLDS}


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
