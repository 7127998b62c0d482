"""Training curves: every number that a stage recorded over its steps, the telling ones first, the others folded away."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from duihua.report.components import folded, heading, joined, note, stage_name, t
from duihua.report.figures import Point, metric_chart
from duihua.report.run_record import RunRecord, StageRecord, finite
from duihua.report.texts import TEXTS

# What is drawn open for a stage; all else that it recorded is one click away.
SHOWN: dict[str, tuple[str, ...]] = {
    "pretrain": ("loss", "bits_per_byte", "learning_rate", "gradient_norm", "tokens_per_second"),
    "sft": ("loss", "learning_rate"),
    "reward": ("loss", "accuracy"),
    "recurrent": ("loss", "valid_perplexity"),
    "translate": ("plain_loss", "validation_bleu", "validation_perplexity"),
    "classify": ("class_loss", "accuracy"),
    "dpo": ("loss", "accuracy", "reward_chosen", "reward_rejected"),
    "grpo": ("score", "kl", "entropy", "solved_alike", "length", "eos_rate"),
    "ppo": ("score", "reward", "kl", "entropy", "clip_fraction", "explained_variance", "length", "eos_rate"),
}
# Units by metric; a unit that differs in one stage stands under "stage.metric".
UNITS: dict[str, str] = {
    "loss": "unit.nats_token",
    "heldout_loss": "unit.nats_token",
    "train_loss": "unit.nats_token",
    "reward.loss": "unit.nats_pair",
    "reward.heldout_loss": "unit.nats_pair",
    "classify.loss": "unit.nats_example",
    "class_loss": "unit.nats_example",
    "language_loss": "unit.nats_token",
    "ppo.loss": "unit.none",
    "grpo.loss": "unit.none",
    "dpo.loss": "unit.nats_pair",
    "margin": "unit.raw_reward",
    "logprob_chosen": "unit.nats_reply",
    "nll_chosen": "unit.nats_token",
    "logprob_rejected": "unit.nats_reply",
    "kl_loss": "unit.nats_token",
    "group_deviation": "unit.reward",
    "solved_alike": "unit.share",
    "bits_per_byte": "unit.bits_byte",
    "valid_perplexity": "unit.perplexity",
    "plain_loss": "unit.nats_token",
    "validation_loss": "unit.nats_token",
    "validation_perplexity": "unit.perplexity",
    "validation_bleu": "unit.bleu",
    "learning_rate": "unit.rate",
    "gradient_norm": "unit.norm",
    "tokens_per_second": "unit.tokens_second",
    "accuracy": "unit.share",
    "heldout_accuracy": "unit.share",
    "heldout_reward": "unit.reward",
    "heldout_judge": "unit.score",
    "heldout_gold": "unit.score",
    "heldout_kl": "unit.nats_reply",
    "heldout_length": "unit.tokens",
    "heldout_eos_rate": "unit.share",
    "heldout_repetition": "unit.share",
    "heldout_bits_per_byte": "unit.bits_byte",
    "reward": "unit.reward",
    "score": "unit.reward",
    "gold_score": "unit.reward",
    "reward_chosen": "unit.raw_reward",
    "reward_rejected": "unit.raw_reward",
    "repetition": "unit.share",
    "approximate_kl": "unit.nats_token",
    "sampler_difference": "unit.nats_token",
    "kl": "unit.nats_reply",
    "entropy": "unit.nats_token",
    "clip_fraction": "unit.share",
    "explained_variance": "unit.share",
    "eos_rate": "unit.share",
    "length": "unit.tokens",
}
NOT_DRAWN = {"step", "tokens", "seconds", "iteration", "epoch", "time"}
# Drawn as a second line in the chart of the other, where both were recorded.
COMPANIONS = {"loss": "heldout_loss", "accuracy": "heldout_accuracy", "plain_loss": "validation_loss"}
# The same of metrics that are recorded source by source, as "train_loss/SOURCE".
BY_SOURCE = {"train_loss": "heldout_loss"}
# A schedule is exact and is drawn without a moving average.
EXACT = {"learning_rate", "kl_coefficient"}


def curves(record: RunRecord) -> Markup | None:
    """Charts of all stages that recorded metrics; those of single sources stand with the stage (`fine_tuning`)."""
    parts: list[Markup] = []
    for stage in record.stages:
        charts = {
            metric: stage_chart(stage, metric)
            for metric in metric_names(stage)
            if "/" not in metric and len(_points(stage, metric)) > 1  # one point is no curve
        }
        if not charts:
            continue
        first = telling(stage.stage, list(charts))
        parts.append(heading(stage_name(stage)))
        parts.append(grid([charts[metric] for metric in first]))
        others = [chart for metric, chart in charts.items() if metric not in first]
        if others:
            parts.append(folded(t("curves.more", stage=stage_name(stage)), grid(others)))
        if stage.unreadable_lines:
            file = f"{stage.directory.name}/metrics.jsonl"
            parts.append(note(t("page.unreadable", count=stage.unreadable_lines, file=file)))
    return joined([note(t("curves.note")), *parts]) if parts else None


def telling(stage: str, metrics: Sequence[str]) -> list[str]:
    """Those of the metrics that are drawn open for a stage."""
    return [metric for metric in SHOWN.get(stage, ("loss",)) if metric in metrics] or list(metrics)[:2]


def grid(charts: Sequence[Markup]) -> Markup:
    """Charts beside each other."""
    return Markup('<div class="charts">{}</div>').format(joined(charts))


def metric_names(stage: StageRecord) -> list[str]:
    """Names of what can be drawn, in the order of their first appearance, companions left out."""
    names: dict[str, None] = {}
    for row in stage.rows:
        names.update(dict.fromkeys(name for name, value in row.items() if finite(value) is not None))
    companions = {companion(name) for name in names}
    return [name for name in names if name not in NOT_DRAWN | companions]


def companion(metric: str) -> str:
    """What is drawn into the same chart as a metric; "" for nothing."""
    name, _, source = metric.partition("/")
    return f"{BY_SOURCE[name]}/{source}" if source and name in BY_SOURCE else COMPANIONS.get(metric, "")


def _points(stage: StageRecord, metric: str) -> list[Point]:
    found = ((finite(row["step"]), finite(row.get(metric))) for row in stage.rows)
    return [(step, value) for step, value in found if step is not None and value is not None]


def metric_title(stage: str, metric: str) -> tuple[Markup, Markup]:
    """What a metric of a kind of stage is called, and its unit."""
    name, _, source = metric.partition("/")
    own, general = f"metric.{stage}.{name}", f"metric.{name}"
    if own in TEXTS or general in TEXTS:
        title = t(own if own in TEXTS else general)
        title = Markup("{} · {}").format(title, source) if source else title
    else:
        title = Markup("<code>{}</code>").format(metric)
    return title, t(UNITS.get(f"{stage}.{name}", UNITS.get(name, "unit.none")))


def stage_chart(stage: StageRecord, metric: str) -> Markup:
    """The chart of a metric over a stage's steps, with the held-out figure beside it where there is one."""
    title, unit = metric_title(stage.stage, metric)
    heldout = _points(stage, companion(metric))
    return metric_chart(title, unit, _points(stage, metric), heldout, noisy=metric not in EXACT)
