"""`duihua bag_of_words`: train a classifier that counts words, ask it, and search texts.

    duihua bag_of_words --output runs/bag --source.name reviews-zh
    duihua bag_of_words runs/bag --predict texts.txt
    duihua bag_of_words --search "printer driver" --documents posts.jsonl

`--predict` and `--search` make the second form (`cli/two_forms.py`). A search without a model weighs words by the documents
themselves; with one, by what it was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.two_forms import train_or_ask
from duihua.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duihua.models.counts.bag import BagOfWords
    from duihua.text.segmentation import Segmentation

SHOWN_CHARACTERS = 200
"""How much of a found text a line shows; --json gives all of it."""

DESCRIPTION = """\
Ask a classifier over bags of words, or find the documents that are most like a query (cosine of their TF-IDF vectors).

FILE: .txt, one text a line; .jsonl, .json, .csv, .tsv or .parquet with a column text; all but .parquet also as .gz or .zst;
- for standard input, read like .txt, or like .jsonl with --form jsonl."""


def main(argv: Sequence[str]) -> int:
    """Train, predict or search; returns 0. Raises DuihuaError."""
    return train_or_ask(
        "bag_of_words",
        argv,
        flags=("--predict", "--search"),
        ask=ask,
        bare="a model that is there can be asked",
        remedy="Add --predict FILE, or --search QUERY --documents FILE; to train, write --output DIR",
        explained="To ask one: duihua bag_of_words MODEL --predict FILE; to search texts: duihua bag_of_words --search\n"
        "QUERY --documents FILE (--search --help explains both). To train one:",
    )


def ask(argv: Sequence[str]) -> int:
    """`duihua bag_of_words MODEL --predict FILE` and `--search QUERY --documents FILE`."""
    arguments = _parser().parse_args(argv)
    with console.json_output(arguments.json):
        if arguments.predict is not None:
            if arguments.search is not None or not arguments.model:
                raise ConfigError(
                    "needs a model and no --search", where="--predict", remedy="Write MODEL --predict FILE"
                )
            outcome = _predict(arguments)
        else:
            outcome = _search(arguments)
        if arguments.json:
            console.emit_json(outcome)
    return 0


def _predict(arguments: argparse.Namespace) -> dict[str, Any]:
    from duihua.models.counts.bag_bundle import load_bag

    bundle = load_bag(arguments.model)
    texts = _texts(arguments, arguments.predict)
    if not texts:
        raise DataError("holds no text", where=arguments.predict, remedy="Write one text a line")
    classes = bundle.classifier.classes
    vectors = bundle.bag.vectors(texts)
    answers = []
    for label, chances, known in zip(
        bundle.classifier.predict(vectors),
        bundle.classifier.probabilities(vectors),
        (vectors.indptr[1:] - vectors.indptr[:-1]).tolist(),
        strict=True,
    ):
        answers.append(
            {"label": label, "probabilities": dict(zip(classes, chances.tolist(), strict=True)), "words": known}
        )
        if not arguments.json:
            shares = (f"{name}={chance:.4f}" for name, chance in zip(classes, chances, strict=True))
            console.say("\t".join([label, *shares]))
    blind = sum(not answer["words"] for answer in answers)
    if blind:
        console.warn(
            f"{blind:,} of {len(answers):,} texts hold no word that the model knows; it goes by its bias alone"
        )
    return {"model": arguments.model, "classes": list(classes), "predictions": answers}


def _search(arguments: argparse.Namespace) -> dict[str, Any]:
    from duihua.models.counts.bag import Collection

    if not arguments.documents:
        raise ConfigError("there is nothing to search in", where="--search", remedy="Add --documents FILE")
    if arguments.k < 1:
        raise ConfigError(
            f"must be at least 1, found {arguments.k}", where="--k", remedy="Set it to 1 or more, or leave it out"
        )
    texts = _texts(arguments, arguments.documents)
    if not texts:
        raise DataError("holds no text", where=arguments.documents, remedy="Write one text a line")
    bag = _bag(arguments, texts)
    hits = Collection(bag, texts).search(arguments.search, arguments.k)
    for hit in hits:
        shown = " ".join(texts[hit.number].split())
        console.say(f"{hit.score:.4f}  {hit.number + 1}  {shown[:SHOWN_CHARACTERS]}")
    if not hits:
        console.say("No document has a word of the query.")
    return {
        "query": arguments.search,
        "documents": len(texts),
        "words": bag.columns,
        "hits": [{"number": hit.number + 1, "score": hit.score, "text": texts[hit.number]} for hit in hits],
    }


def _bag(arguments: argparse.Namespace, texts: Sequence[str]) -> BagOfWords:
    """Of the model, or of the documents themselves."""
    from duihua.data.records import detect_language
    from duihua.models.counts.bag import BagOfWords
    from duihua.models.counts.bag_bundle import load_bag
    from duihua.text.words import WordVocabulary

    if arguments.model:
        return load_bag(arguments.model).bag
    segmentation: Segmentation = arguments.segmentation or (
        "jieba" if detect_language("\n".join(texts)) == "zh" else "marks"
    )
    return BagOfWords.fit(WordVocabulary.train(texts, 0, segmentation, lowercase=True), texts)


def _texts(arguments: argparse.Namespace, file: str) -> list[str]:
    from duihua.cli.questions import read_questions

    columns = (arguments.column,) if arguments.column else ()
    return [question.texts[0] for question, _ in read_questions(file, "classification", columns, arguments.form)]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua bag_of_words",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", default="", help="folder that `duihua bag_of_words --output` has written"
    )
    parser.add_argument("--predict", metavar="FILE", help="texts to classify; - for standard input")
    parser.add_argument("--search", metavar="QUERY", help="words to look for")
    parser.add_argument("--documents", metavar="FILE", help="texts to search in; - for standard input")
    parser.add_argument("--k", metavar="N", type=int, default=5, help="most texts that are found (default 5)")
    parser.add_argument(
        "--segmentation",
        choices=("marks", "spaces", "jieba"),
        default="",
        help="how words are found in a search without a model (default: jieba for Chinese texts, else marks)",
    )
    parser.add_argument("--column", metavar="NAME", default="", help="column of the text, where not a usual name")
    parser.add_argument("--form", choices=("txt", "jsonl"), default="txt", help="form of standard input (default txt)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
