"""Language modelling: what the tokenizer makes of both languages, and how well each model predicts held-out text."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from duihua.report.components import estimate, heading, joined, note, number, size_of, t, table
from duihua.report.run_record import RunRecord, dig

LANGUAGES = ("all", "en", "zh")
MODELS = ("base", "sft", "ppo")


def language(record: RunRecord) -> Markup | None:
    """Tables of the tokenizer and of held-out prediction per model and language."""
    parts = [*_tokenizer(record), *_quality(record)]
    return joined(parts) if parts else None


def _tokenizer(record: RunRecord) -> list[Markup]:
    result = record.result("tokenizer")
    if not result:
        return []
    rows = [
        (
            t(f"language.{code}"),
            number(dig(result, f"characters_per_token.{code}"), 2),
            size_of(dig(result, f"sample_bytes.{code}")),
        )
        for code in ("en", "zh")
    ]
    columns = (t("column.language"), t("language.characters"), t("language.sample"))
    return [
        heading(t("language.tokenizer")),
        note(t("language.tokenizer.note", vocabulary=number(result.get("vocabulary_size")))),
        table(columns, rows, "lrr"),
    ]


def _quality(record: RunRecord) -> list[Markup]:
    pretrain, evaluate, sft = (record.result(kind) for kind in ("pretrain", "evaluate", "sft"))
    rows: list[tuple[object, ...]] = []
    if pretrain and pretrain.get("bits_per_byte") != dig(evaluate, "bits_per_byte.base"):
        rows.append(_row(t("language.base_row"), pretrain.get("bits_per_byte"), pretrain.get("perplexity"), None))
    for model in MODELS:
        bits = dig(evaluate, f"bits_per_byte.{model}")
        if bits is not None:
            accuracy = dig(evaluate, f"token_accuracy.{model}")
            rows.append(_row(t(f"model.{model}"), bits, dig(evaluate, f"perplexity.{model}"), accuracy))
    if not rows:
        return []
    columns: list[Markup] = [t("column.model")]
    columns += [Markup("{}<br>{}").format(t("column.bits"), t(f"language.{code}")) for code in LANGUAGES]
    columns += [Markup("{}<br>{}").format(t("column.perplexity"), t(f"language.{code}")) for code in LANGUAGES]
    columns.append(t("column.token_accuracy"))
    parts = [
        heading(t("language.quality")),
        note(t("language.quality.note")),
        table(columns, rows, "l" + "r" * 7),
    ]
    if pretrain.get("heldout_bytes"):
        sentences = [t("language.heldout", bytes=size_of(pretrain["heldout_bytes"]))]
        read = dig(evaluate, "settings.heldout_bytes")
        if read and read != pretrain["heldout_bytes"]:
            sentences.append(t("language.sampled", bytes=size_of(read)))
        parts.append(note(Markup(" ").join(sentences)))
    if sft.get("heldout_loss") is not None:
        accuracy = estimate(sft.get("heldout_token_accuracy"))
        parts.append(note(t("language.sft", loss=number(sft["heldout_loss"]), accuracy=accuracy)))
    return parts


def _row(name: Markup, bits: object, perplexity: object, accuracy: object) -> tuple[object, ...]:
    def per_language(values: object, digits: int) -> list[object]:
        if isinstance(values, Mapping):
            return [estimate(values.get(code), digits) for code in LANGUAGES]
        return [estimate(values, digits), "–", "–"]

    return (name, *per_language(bits, 3), *per_language(perplexity, 1), estimate(accuracy))
