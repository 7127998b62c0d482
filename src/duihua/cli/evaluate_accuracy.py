"""`duihua evaluate accuracy`: of a model's next tokens, of lines against references, of predicted classes against true ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.evaluate_common import (
    check,
    data_flags,
    documents,
    finish,
    open_models,
    own_records,
    read_pairs,
    result_flags,
    say_left_out,
    shown,
    text_flags,
    window_flags,
)
from duihua.cli.evaluate_lines import error_rates, rate_row
from duihua.cli.evaluate_text import score, settings, windows_text
from duihua.errors import BundleError, ConfigError, DataError

if TYPE_CHECKING:
    from duihua.data.records import Conversation
    from duihua.evaluation.language_model import LanguageModel

ABOUT = """\
Three kinds of accuracy, each with its counts and a 95 % interval.

tokens   MODEL with --text or --source (texts), or with --conversations: how often the likeliest next token is the true one;
         of conversations only what the assistant says is counted. Bootstrap over documents or conversations, because the
         tokens of one document are not independent.
lines    --hypotheses FILE --references FILE: lines that are right as a whole, exactly and after normalising; the error
         rate beside it. Wilson's interval.
classes  --predictions FILE.jsonl: rows with prediction and label; also F1, Matthews' correlation, confusion. Wilson's."""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises DuihuaError."""
    parser = Parser(
        prog="duihua evaluate accuracy",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[text_flags(), window_flags(), data_flags(), result_flags()],
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", default="", help="folder of the model, for tokens")
    parser.add_argument(
        "--conversations",
        metavar="FILE",
        nargs="+",
        default=[],
        help="your own conversations, or names of known sources",
    )
    parser.add_argument("--hypotheses", metavar="FILE", default="", help="what a system wrote, one text a line")
    parser.add_argument(
        "--references", metavar="FILE", nargs="+", default=[], help="right lines; several files: any of them"
    )
    parser.add_argument("--normalise", action="store_true", help="error rate without case, width and punctuation")
    parser.add_argument("--chinese", action="store_true", help="error rate of characters instead of words")
    parser.add_argument("--predictions", metavar="FILE", default="", help="rows with a predicted and a true class")
    parser.add_argument(
        "--columns",
        metavar="A,B",
        default="prediction,label",
        help="names of the two columns (default prediction,label)",
    )
    arguments = parser.parse_args(list(argv))
    with console.json_output(arguments.json):
        check(arguments)
        asked = [bool(arguments.model), bool(arguments.hypotheses or arguments.references), bool(arguments.predictions)]
        if sum(asked) != 1:
            raise ConfigError(
                "give a model, or lines, or predictions" if not any(asked) else "one kind of accuracy at a time",
                where="duihua evaluate accuracy",
                remedy="`duihua evaluate accuracy --help` shows the three forms",
            )
        if arguments.predictions:
            return of_classes(arguments)
        return of_tokens(arguments) if arguments.model else of_lines(arguments)


def of_tokens(arguments: argparse.Namespace) -> int:
    """Right next tokens of a model."""
    if arguments.conversations:
        if arguments.text or arguments.source:
            raise ConfigError(
                "texts or conversations, not both at once", where="--conversations", remedy="Run the command twice"
            )
        return of_conversations(arguments)
    material, left_out = documents(arguments)
    (model,) = open_models([arguments.model], arguments)

    from duihua.evaluation.perplexity import figures

    found = figures(score(model, material, arguments), rounds=arguments.rounds, seed=arguments.seed)
    if found["all"].accuracy is None:
        raise BundleError(
            "this model gives probabilities and does not say which token is likeliest",
            where=arguments.model,
            remedy="Use a decoder or a recurrent network, or measure perplexity",
        )
    outcome = {
        "kind": "tokens",
        "model": arguments.model,
        **settings(model, arguments, left_out),
        "accuracy": found["all"].accuracy.value,
        "figures": {
            name: {
                **(each.accuracy.to_dict() if each.accuracy is not None else {}),
                "n": each.tokens,
                "documents": each.documents,
            }
            for name, each in found.items()
        },
    }

    def show() -> None:
        rows = [[name, shown(each.accuracy, 100), each.tokens, each.documents] for name, each in found.items()]
        title = f"{arguments.model}, {windows_text(outcome)}"
        console.table(title, ["texts", "right tokens, % [95 %]", "tokens", "documents"], rows)
        say_left_out(left_out)

    return finish(arguments, outcome, show)


def of_conversations(arguments: argparse.Namespace) -> int:
    """Right next tokens of what the assistant says."""
    conversations = _conversations(arguments)
    (model,) = open_models([arguments.model], arguments)

    from duihua.data.packing import encode_conversations
    from duihua.evaluation.accuracy import token_accuracy
    from duihua.text.chat_template import ChatTemplate

    bundle = _decoder(model)
    encoded = encode_conversations(conversations, ChatTemplate(bundle.tokenizer), bundle.config.context)
    if not encoded.examples:
        raise DataError(
            "no conversation can be scored", where="--conversations", remedy="Check them: duihua data check"
        )
    console.say(f"accuracy: {len(encoded.examples):,} conversations")
    found = token_accuracy(bundle.policy, encoded.examples, device=arguments.device, seed=arguments.seed)
    outcome = {
        "kind": "tokens",
        "model": arguments.model,
        "accuracy": found.accuracy.value,
        "interval": found.accuracy.to_dict(),
        "perplexity": found.perplexity,
        "conversations": found.conversations,
        "left_out": dict(encoded.left_out),
    }

    def show() -> None:
        row = [found.conversations, found.accuracy.n, shown(found.accuracy, 100), found.perplexity]
        names = ["conversations", "assistant's tokens", "right, % [95 %]", "perplexity"]
        console.table(arguments.model, names, [row])
        for reason, count in encoded.left_out.items():
            console.say(f"{count:,} x {reason}")

    return finish(arguments, outcome, show)


def _conversations(arguments: argparse.Namespace) -> list[Conversation]:
    """The user's own, all of them, and the held-out ones of known sources."""
    from duihua.data.home import data_directory
    from duihua.data.records import Conversation
    from duihua.data.source import KNOWN_SOURCES, SourceConfig, open_source

    found = []
    for name in arguments.conversations:
        known = name in KNOWN_SOURCES
        source = (
            open_source(SourceConfig(name=name), data_directory(arguments.data))
            if known
            else own_records(name, "conversations")
        )
        if source.kind != "conversations":
            raise ConfigError(f"holds {source.kind}", where=f"--conversations {name}", remedy="Use --source for texts")
        found += [record for record in source.records("heldout") if isinstance(record, Conversation)]
    return found


def _decoder(model: LanguageModel) -> Any:
    from duihua.evaluation.language_model import DecoderModel

    if not isinstance(model, DecoderModel):
        raise BundleError(
            "only a decoder knows the chat template", where=model.name, remedy="Give --text, or another model"
        )
    return model.bundle


def of_lines(arguments: argparse.Namespace) -> int:
    """Lines that are right as a whole."""
    if not arguments.hypotheses or not arguments.references:
        missing = "--references" if arguments.hypotheses else "--hypotheses"
        raise ConfigError("is needed too", where=missing, remedy="Give --hypotheses FILE and --references FILE")
    said, references = read_pairs(arguments.hypotheses, arguments.references)

    from duihua.evaluation.sequence_accuracy import exact_match

    strict, loose = exact_match(said, references)
    outcome: dict[str, Any] = {
        "kind": "lines",
        "accuracy": strict.value,
        "exact": strict.to_dict(),
        "normalised": loose.to_dict(),
        "lines": len(said),
    }
    rows = [
        ["exactly right, %", shown(strict, 100), f"{round(strict.value * strict.n):,} of {strict.n:,} lines"],
        ["right after normalising, %", shown(loose, 100), f"{round(loose.value * loose.n):,} of {loose.n:,} lines"],
    ]
    if len(arguments.references) == 1:
        rates = error_rates(said, [known for (known,) in references], arguments.chinese, arguments)
        outcome |= {name: rate.to_dict() for name, rate in rates.items()}
        rows += [rate_row(rate) for rate in rates.values()]
    return finish(
        arguments, outcome, lambda: console.table(arguments.hypotheses, ["accuracy", "value [95 %]", "counts"], rows)
    )


def of_classes(arguments: argparse.Namespace) -> int:
    """Right classes out of a file of predictions."""
    from pathlib import Path

    from duihua.data.rows import Row, read_rows
    from duihua.evaluation.sequence_accuracy import predictions_score

    names = [name.strip() for name in arguments.columns.split(",")]
    if len(names) != 2 or not all(names):
        raise ConfigError("needs two names", where="--columns", remedy="Write --columns prediction,label")

    def rows() -> Any:
        for row in read_rows(Path(arguments.predictions).expanduser()):
            if not isinstance(row, Row):
                raise DataError(row.reason, where=row.place, remedy="Mend the line")
            yield row.values, row.place

    found = predictions_score(rows(), *names)
    outcome = {
        "kind": "classes",
        **found.to_dict(),
        "accuracy": found.accuracy.value,
        "interval": found.accuracy.to_dict(),
    }

    def show() -> None:
        counts = f"{found.confusion.right:,} of {found.confusion.n:,}"
        row = [shown(found.accuracy, 100), counts, found.macro_f1, found.matthews]
        console.table(arguments.predictions, ["right, % [95 %]", "counts", "macro F1", "Matthews"], [row])
        labels = found.confusion.labels
        table = [[label, *counts] for label, counts in zip(labels, found.confusion.counts, strict=True)]
        console.table("\nTrue class by predicted class", ["true \\ predicted", *labels], table)

    return finish(arguments, outcome, show)
