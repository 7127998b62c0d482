"""Recurrent language models: the perplexity of each part of the corpus, and what such a model writes.

Why a row for guessing evenly: its perplexity is the number of ids, and without it nobody can tell whether 100 is much. Why the
share of <unk>: a corpus in which many words are <unk> is easy, and perplexities over different vocabularies do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import heading, joined, note, number, said, stage_name, t, table
from duihua.report.run_record import RunRecord, dig, finite

CELLS = {"rnn": "tanh RNN", "lstm": "LSTM", "gru": "GRU"}
PARTS = ("train", "valid", "test")


def recurrent(record: RunRecord) -> Markup | None:
    """Every recurrent stage of the run that has a result, in order."""
    stages = [stage for stage in record.stages if stage.stage == "recurrent" and stage.result]
    parts: list[Markup] = []
    for stage in stages:
        if len(stages) > 1:
            parts.append(heading(stage_name(stage)))
        parts += [note(_facts(stage.result)), _perplexities(stage.result), *_samples(stage.result)]
    return joined([note(t("recurrent.note")), *parts]) if parts else None


def _facts(result: Mapping[str, Any]) -> Markup:
    cell = str(result.get("cell") or "")
    sentences = [
        t(
            "recurrent.facts",
            cell=CELLS.get(cell, cell),
            parameters=number(result.get("parameters")),
            tokens=number(dig(result, "corpus.tokens.train")),
            corpus=str(dig(result, "corpus.name") or ""),
        )
    ]
    if result.get("averaged"):
        sentences.append(t("recurrent.averaged"))
    share = finite(dig(result, "corpus.unknown_share.test"))
    if share is not None:
        sentences.append(t("recurrent.unknown", share=f"{share:.1%}"))
    if dig(result, "corpus.treebank") is True:
        sentences.append(t("recurrent.treebank"))
    return Markup(" ").join(sentences)


def _perplexities(result: Mapping[str, Any]) -> Markup:
    rows: list[tuple[object, ...]] = [
        (t("recurrent.evenly"), "–", number(dig(result, "corpus.vocabulary_size"))),
        *(
            (t(f"recurrent.{part}"), number(dig(result, f"measured_tokens.{part}")), _perplexity(result, part))
            for part in PARTS
        ),
    ]
    return table([t("recurrent.part"), t("recurrent.measured"), t("column.perplexity")], rows, "nrr")


def _perplexity(result: Mapping[str, Any], part: str) -> Markup:
    return escape(number(dig(result, f"perplexity.{part}"), 1))


def _samples(result: Mapping[str, Any]) -> list[Markup]:
    samples = [text for text in result.get("samples") or [] if isinstance(text, str)]
    if not samples:
        return []
    return [
        heading(t("recurrent.samples")),
        note(t("recurrent.samples.note")),
        *(Markup('<div class="sample"><p class="prompt">{}</p></div>').format(said(text)) for text in samples),
    ]
