"""Two systems on the same items: the rows that `significance.compare` needs, for texts, tasks and translations."""

from __future__ import annotations

from collections.abc import Sequence

from duihua.errors import DataError
from duihua.evaluation import perplexity
from duihua.evaluation.bleu import bleu_metric, chrf_metric
from duihua.evaluation.perplexity import DocumentScore, document_rows
from duihua.evaluation.significance import Comparison, as_rows, compare, ratio
from duihua.evaluation.tasks import ItemOutcome


def compare_texts(
    first: Sequence[DocumentScore], second: Sequence[DocumentScore], *, rounds: int = 1000, seed: int = 0
) -> dict[str, Comparison]:
    """{"bits_per_byte": ..., "perplexity": ...}, document by document.

    Perplexity only where both cut the texts into as many tokens, bits per byte only where both sets of ids say all of them:
    otherwise the numbers are about different things. Raises DataError where neither is left, or the documents differ.
    """
    same_items(first, second, "documents")
    if [score.bytes for score in first] != [score.bytes for score in second]:
        raise DataError(
            "the two systems were given different documents",
            where="compare",
            remedy="Score the same files in one order",
        )
    found: dict[str, Comparison] = {}
    before, after = document_rows(first), document_rows(second)
    if all(score.whole for score in [*first, *second]):
        found["bits_per_byte"] = compare(before, after, perplexity.bits_per_byte, rounds=rounds, seed=seed)
    if [score.tokens for score in first] == [score.tokens for score in second]:
        found["perplexity"] = compare(before, after, perplexity.perplexity, rounds=rounds, seed=seed)
    if not found:
        raise DataError(
            "the two models cut the text differently, and not both keep all of it: no number means the same for both",
            where="compare",
            remedy="Compare models with one vocabulary, or with vocabularies of bytes",
        )
    return found


def compare_tasks(
    first: Sequence[ItemOutcome], second: Sequence[ItemOutcome], normalised: bool, *, rounds: int = 1000, seed: int = 0
) -> dict[str, Comparison]:
    """{"acc": ..., "acc_norm": ...}, question by question."""
    same_items(first, second, "questions")

    def right(outcomes: Sequence[ItemOutcome], norm: bool) -> list[float]:
        return [float((each.chosen_norm if norm else each.chosen) == each.answer) for each in outcomes]

    ones = [1.0] * len(first)
    return {
        name: compare(
            as_rows(right(first, norm), ones), as_rows(right(second, norm), ones), ratio, rounds=rounds, seed=seed
        )
        for name, norm in [("acc", False), *([("acc_norm", True)] if normalised else [])]
    }


def compare_translations(
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[Sequence[str]],
    language: str,
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Comparison], dict[str, str]]:
    """({"bleu": ..., "chrf": ...}, their signatures), line by line."""
    same_items(first, second, "lines")
    found, signatures = {}, {}
    for name, metric in (("bleu", bleu_metric(language)), ("chrf", chrf_metric())):
        rows = metric.rows(first, references), metric.rows(second, references)
        found[name] = compare(*rows, metric.score, rounds=rounds, seed=seed)
        signatures[name] = metric.signature
    return found, signatures


def same_items(first: Sequence[object], second: Sequence[object], what: str) -> None:
    """Raise DataError where the two do not pair up."""
    if len(first) != len(second):
        raise DataError(
            f"{len(first):,} {what} of the first system, {len(second):,} of the second: they are compared one by one",
            where="compare",
            remedy="Give both systems the same items in the same order",
        )
