"""The model card: README.md of a bundle, saying what the model is, what it was made from and under which terms.

Why the terms also stand in config.json: a model fine-tuned from another inherits the terms of all its data. A stage
reads `bundle.terms` of what it starts from and hands `merge_terms(bundle.terms, its own)` to `ModelCard`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from duihua.version import __version__


@dataclass(frozen=True)
class ModelCard:
    """What a stage says of the model it made.

    title: one line. stage: pretrain, sft, reward, ppo, ... description: a paragraph of Markdown. terms: a mapping a
    source with name, language, licence, homepage, attribution, note; the data of the models it was made from included.
    metrics: measured values, nested mappings allowed. prompts: openings that it was taught to answer, for whoever wants to talk
    to it.
    """

    title: str
    stage: str
    description: str = ""
    terms: Sequence[Mapping[str, str]] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    prompts: Sequence[str] = ()


def card_text(
    card: ModelCard,
    parameters: int,
    shape: Mapping[str, Any],
    version: str,
    *,
    library: str = "transformers",
    task: str = "text-generation",
) -> str:
    """The card as Markdown with the header block that model hubs read. library: which one reads the files. task: the hubs'
    name for what the model does; a reward model's stands for itself."""
    lines = [
        "---",
        f"library_name: {library}",
        f"pipeline_tag: {'text-classification' if card.stage == 'reward' else task}",
        "language: [en, zh]",
        "license: other",
        "license_name: terms-of-the-data",
        f"tags: [duihua, {card.stage}]",
        "---",
        "",
        f"# {card.title}",
        "",
        *([card.description, ""] if card.description else []),
        f"Made with duihua {version}, stage `{card.stage}`; {parameters:,} parameters.",
        "",
        "A small model trained for learning and research. It states falsehoods with confidence; do not rely on it.",
        "这是用于学习和研究的小模型，会自信地说错话，请勿依赖其内容。",
        "",
        "## Data and terms",
        "",
    ]
    if card.terms:
        lines += ["| source | language | licence | attribution | note |", "|---|---|---|---|---|"]
        for terms in merge_terms(card.terms):
            written = (_cell(terms.get(key, "")) for key in ("language", "licence", "attribution", "note"))
            cells = (_link(terms["name"], terms.get("homepage", "")), *written)
            lines.append(f"| {' | '.join(cells)} |")
    else:
        lines.append("No source was recorded.")
    if card.prompts:
        lines += ["", "## Something to begin with", "", *(f"- {_cell(prompt)}" for prompt in card.prompts)]
    lines += ["", "## Shape", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in shape.items()]
    if card.metrics:
        lines += ["", "## Measured", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {_value(value)} |" for name, value in _flat(card.metrics)]
    return "\n".join([*lines, ""])


def merge_terms(*lists: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The union of several lists of terms, one entry a source name (the first met), in order of name."""
    found: dict[str, Mapping[str, str]] = {}
    for terms in (terms for one in lists for terms in one):
        found.setdefault(terms["name"], terms)
    return [found[name] for name in sorted(found)]


def origin(card: ModelCard, layout: int) -> dict[str, Any]:
    """What config.json says under `duihua` of every bundle of ours: its layout's number, the version that wrote it, the stage
    that made the model, the terms of its data, and what it was taught to answer."""
    return {
        "format": layout,
        "version": __version__,
        "stage": card.stage,
        "terms": [dict(terms) for terms in merge_terms(card.terms)],
        **({"prompts": list(card.prompts)} if card.prompts else {}),
    }


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as dotted names; lists are left to the report."""
    rows: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float | bool):
            rows.append((f"{prefix}{name}", value))
    return rows


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _cell(str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _link(name: str, homepage: str) -> str:
    return f"[{_cell(name)}]({homepage})" if homepage.startswith(("http://", "https://")) else _cell(name)
