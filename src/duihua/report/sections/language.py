"""Language modelling: what the tokenizer makes of both languages, and how well each model predicts held-out text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    """Three small tables instead of a wide one: each is read on its own, and each fits a phone."""
    pretrain, evaluate, sft = (record.result(kind) for kind in ("pretrain", "evaluate", "sft"))
    bits, perplexity = (_by_model(evaluate, name) for name in ("bits_per_byte", "perplexity"))
    if pretrain.get("bits_per_byte") and pretrain["bits_per_byte"] != dig(evaluate, "bits_per_byte.base"):
        whole = t("language.base_row")
        bits.insert(0, (whole, pretrain.get("bits_per_byte")))
        perplexity.insert(0, (whole, pretrain.get("perplexity")))
    accuracy = _by_model(evaluate, "token_accuracy")
    if not (bits or perplexity or accuracy):
        return []
    boxes = [
        _box(t("column.bits"), _language_table(bits, 3)) if bits else "",
        _box(t("column.perplexity"), _language_table(perplexity, 1)) if perplexity else "",
        _box(t("column.token_accuracy"), _accuracy_table(accuracy)) if accuracy else "",
    ]
    parts = [
        heading(t("language.quality")),
        note(t("language.quality.note")),
        Markup('<div class="tables">{}</div>').format(joined(boxes)),
    ]
    if pretrain.get("heldout_bytes"):
        sentences = [t("language.heldout", bytes=size_of(pretrain["heldout_bytes"]))]
        read = dig(evaluate, "settings.heldout_bytes")
        if read and read != pretrain["heldout_bytes"]:
            sentences.append(t("language.sampled", bytes=size_of(read)))
        parts.append(note(Markup(" ").join(sentences)))
    if sft.get("heldout_loss") is not None:
        value = estimate(sft.get("heldout_token_accuracy"))
        parts.append(note(t("language.sft", loss=number(sft["heldout_loss"]), accuracy=value)))
    return parts


def _by_model(evaluate: object, name: str) -> list[tuple[Markup, object]]:
    found = [(t(f"model.{model}"), dig(evaluate, f"{name}.{model}")) for model in MODELS]
    return [(model, value) for model, value in found if value is not None]


def _box(title: Markup, body: Markup) -> Markup:
    return Markup("<div><h4>{}</h4>{}</div>").format(title, body)


def _language_table(rows: Iterable[tuple[Markup, object]], digits: int) -> Markup:
    """A row for each model, a column for each language; a figure that is not split by language stands for both."""
    cells = []
    for name, values in rows:
        split = values if isinstance(values, Mapping) else {"all": values}
        cells.append((name, *(estimate(split.get(code), digits) for code in LANGUAGES)))
    return table([t("column.model"), *(t(f"language.{code}") for code in LANGUAGES)], cells, "nrrr")


def _accuracy_table(rows: Iterable[tuple[Markup, object]]) -> Markup:
    columns = (t("column.model"), t("column.token_accuracy"))
    return table(columns, [(name, estimate(value)) for name, value in rows], "nr")
