"""`duihua evaluate perplexity MODEL --text FILE`: how well a model predicts text, with context and stride stated."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.evaluate_common import (
    check,
    data_flags,
    documents,
    finish,
    open_models,
    result_flags,
    say_left_out,
    shown,
    text_flags,
    window_flags,
)

if TYPE_CHECKING:
    from duihua.data.records import Document
    from duihua.evaluation.language_model import LanguageModel
    from duihua.evaluation.perplexity import DocumentScore, TextFigures

ABOUT = """\
Perplexity (exp of nats a token) and bits per byte of texts, over all tokens and over all bytes, per language, with 95 %
bootstrap intervals over documents. MODEL: a decoder, recurrent or n-gram model of ours, or a Hugging Face directory.
Every document is scored from its own start, every token once. Numbers with another context or stride, and perplexities
under another vocabulary, must not be compared."""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises DuihuaError."""
    parser = Parser(
        prog="duihua evaluate perplexity",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[text_flags(), window_flags(), data_flags(), result_flags()],
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="folder of the model")
    arguments = parser.parse_args(list(argv))
    with console.json_output(arguments.json):
        check(arguments)
        material, left_out = documents(arguments)
        (model,) = open_models([arguments.model], arguments)
        scores = score(model, material, arguments)

        from duihua.evaluation.bits_per_byte import altered_line
        from duihua.evaluation.perplexity import figures

        found = figures(scores, rounds=arguments.rounds, seed=arguments.seed)
        outcome = {"model": arguments.model, **settings(model, arguments, left_out), **table(found)}

        def show() -> None:
            say_figures(f"{arguments.model}, {windows_text(outcome)}", found)
            if found["all"].altered:
                console.say(altered_line(found["all"].altered, found["all"].documents))
            say_left_out(left_out)

        return finish(arguments, outcome, show)


def score(model: LanguageModel, material: Sequence[Document], arguments: argparse.Namespace) -> list[DocumentScore]:
    """Every document's score, under a progress bar that carries the model's name."""
    from duihua.evaluation.perplexity import score_documents
    from duihua.evaluation.sentence_perplexity import score_sentences

    texts = [document for document in material if document.text]
    if arguments.lines:
        with console.progress(len(texts), "files", Path(model.name).name or "texts") as bar:
            return score_sentences(model, texts, arguments.context, arguments.stride, bar.advance)
    with console.progress(len(texts), "documents", Path(model.name).name or "texts") as bar:
        return score_documents(model, texts, arguments.context, arguments.stride, bar.advance)


def settings(model: LanguageModel, arguments: argparse.Namespace, left_out: dict[str, Any]) -> dict[str, Any]:
    """What decides the numbers."""
    from duihua.evaluation.perplexity import resolve

    context, stride = resolve(model, arguments.context, arguments.stride)
    return {
        "context": context,
        "stride": stride,
        "unit": "sentences, their ends counted" if arguments.lines else "documents",
        "texts": [*arguments.text, *(f"{name} (held out)" for name in arguments.source)],
        "left_out": left_out,
    }


def table(found: dict[str, TextFigures]) -> dict[str, Any]:
    """The two numbers of everything, and all figures by language."""
    whole = found["all"]
    return {
        "perplexity": whole.perplexity.value,
        "bits_per_byte": None if whole.bits_per_byte is None else whole.bits_per_byte.value,
        "figures": {name: each.to_dict() for name, each in found.items()},
    }


def windows_text(outcome: dict[str, Any]) -> str:
    """The context and stride, for people."""
    unit = f"; {outcome['unit']}" if outcome["unit"] != "documents" else ""
    if outcome["context"] is None:
        return f"no windows{unit}"
    return f"context {outcome['context']:,}, stride {outcome['stride']:,}{unit}"


def say_figures(title: str, found: dict[str, TextFigures]) -> None:
    """A table for people, a line a language."""
    console.table(
        title,
        ["texts", "perplexity [95 %]", "bits per byte [95 %]", "tokens", "bytes", "documents", "unknown"],
        [
            [
                name,
                shown(each.perplexity),
                shown(each.bits_per_byte, digits=4),
                each.tokens,
                each.bytes,
                each.documents,
                each.unknown,
            ]
            for name, each in found.items()
        ],
    )
