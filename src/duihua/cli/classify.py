"""`duihua classify`: train a classifier, and ask one.

    duihua classify --input policy=runs/quickstart/pretrain --output runs/reviews --source.name reviews-zh
    duihua classify runs/reviews --predict texts.txt

`--predict` makes the second form (`cli/two_forms.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.two_forms import train_or_ask

if TYPE_CHECKING:
    from duihua.engine.classifier_model import ClassifierModel, Prediction

CHUNK = 256
"""Examples that are read, answered and printed together, so that a long file shows its answers as they are made."""

PREDICT_HELP = """\
Print the label and the probability of every label, one line for each example, in the file's order.

FILE: .txt, one example a line; the two texts of a pair, or a context and its options, with tabs between them.
.jsonl, .json, .csv, .tsv, .parquet: columns text; for pairs the usual names such as sentence1 and sentence2 or premise and
hypothesis; for choices context and options (a list). All but .parquet also as .gz or .zst. -: standard input, read like
.txt, or like .jsonl with --form jsonl."""


def main(argv: Sequence[str]) -> int:
    """Train or predict; returns 0. Raises DuihuaError."""
    return train_or_ask(
        "classify",
        argv,
        flags=("--predict",),
        ask=predict,
        bare="a model to ask needs a file of questions",
        remedy="Add --predict FILE; to train, write --input policy=DIR --output DIR",
        explained="To ask a classifier: duihua classify MODEL --predict FILE (--predict --help explains it).\n"
        "To train one:",
    )


def predict(argv: Sequence[str]) -> int:
    """`duihua classify MODEL --predict FILE`."""
    arguments = _parser().parse_args(argv)
    with console.json_output(arguments.json):
        from duihua.cli.questions import read_questions
        from duihua.engine.classifier_model import ClassifierModel

        model = ClassifierModel.load(arguments.model, arguments.device)
        columns = tuple(name for name in arguments.columns.split(",") if name)
        questions = read_questions(arguments.predict, model.settings.task, columns, arguments.form)
        answers: list[Prediction] = []
        count = cut = 0
        while chunk := list(islice(questions, CHUNK)):
            made = model.predict([_encoded(model, question, place) for question, place in chunk])
            count += len(made)
            cut += sum(answer.cut_tokens > 0 for answer in made)
            if arguments.json:
                answers += made
                continue
            for answer in made:
                print(_line(answer), flush=False)
            sys.stdout.flush()
        if cut:
            limit = model.settings.length
            console.warn(f"cut to {limit} tokens, longest part first: {cut:,} of {count:,} examples were longer")
        if arguments.json:
            console.emit_json(_outcome(arguments.model, model, answers))
    return 0


def _encoded(model: ClassifierModel, question: Any, place: str) -> Any:
    from duihua.errors import DataError

    try:
        return model.encode(question)
    except DataError as error:
        raise DataError(error.problem, where=place, remedy=error.remedy or "Mend the line") from error


def _line(answer: Prediction) -> str:
    return "\t".join([answer.label, *(f"{name}={chance:.4f}" for name, chance in answer.probabilities.items())])


def _outcome(directory: str, model: ClassifierModel, answers: Sequence[Prediction]) -> dict[str, Any]:
    return {
        "model": directory,
        "task": model.settings.task,
        "classes": list(model.settings.classes),
        "predictions": [
            {"label": answer.label, "probabilities": answer.probabilities, "cut_tokens": answer.cut_tokens}
            for answer in answers
        ],
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua classify",
        description=PREDICT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a classifier that this command has trained")
    parser.add_argument("--predict", metavar="FILE", required=True, help="examples to classify; - for standard input")
    parser.add_argument("--columns", metavar="A,B", default="", help="columns of the texts, where not the usual names")
    parser.add_argument("--form", choices=("txt", "jsonl"), default="txt", help="form of standard input (default txt)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
