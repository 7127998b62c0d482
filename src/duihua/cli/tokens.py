"""`duihua tokens [TEXT ...]`: the same sentences under bytes pairs, characters and words.

    duihua tokens --learn race-text "How are you?" 你好吗？
    duihua tokens --tokenizer runs/quickstart/tokenizer --words mine.txt --html tokens.html

`--tokenizer DIR` shows any bundle or vocabulary folder, `--characters FILE` and `--words FILE` learn from a text of yours (a
file of words gives two rows, cut by marks and by jieba), `--learn SOURCE` learns all four kinds from a megabyte of each
language. Without any of these they are learnt from the small sample that comes with the package: enough to see the kinds
apart, and little else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from duihua import console
from duihua.cli.arguments import Parser
from duihua.data.lines import read_text, stream_lines
from duihua.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duihua.text.vocabulary import Vocabulary

DEFAULT_SIZE = 10_000
SAMPLE_TOKENS = 600
"""Most ids of a tokenizer that the package's sample allows."""
MEGABYTES, READ_MEGABYTES = 1.0, 8.0
"""Text of each language that --learn takes, and out of how much of the source it is drawn."""
KINDS = ("bytes", "characters", "words", "words-jieba")


def main(argv: Sequence[str]) -> int:
    """Show the tokens; returns 0. Raises DuihuaError."""
    arguments = _parser().parse_args(argv)
    if arguments.vocabulary_size < 0:
        raise ConfigError("cannot be negative", where="--vocabulary-size", remedy="Set 0 for all words or characters")
    with console.json_output(arguments.json):
        from duihua.text.token_view import EXAMPLES, show, token_view

        texts = _texts(arguments.text) or list(EXAMPLES)
        view = token_view(texts, _vocabularies(arguments))
        if arguments.html:
            from duihua.files import write_atomic
            from duihua.report.token_page import token_page

            write_atomic(Path(arguments.html), token_page(view).encode("utf-8", "replace"))
        if arguments.json:
            console.emit_json(view)
        else:
            show(view)
            if arguments.html:
                console.say(f"The page is in {arguments.html}")
    return 0


def _texts(given: Sequence[str]) -> list[str]:
    """The texts on the command line; "-" is every line of standard input that is not empty."""
    texts: list[str] = []
    for text in given:
        if text != "-":
            texts.append(text)
            continue
        texts += [line for line in stream_lines(text) if line.strip()]
    if given and not any(texts):
        raise DataError(
            "there is no text", where="duihua tokens", remedy="Write a sentence, or leave it out for examples"
        )
    return texts


def _vocabularies(arguments: argparse.Namespace) -> dict[str, Vocabulary]:
    """Name -> vocabulary, in the order in which they are shown."""
    from duihua.text.vocabulary import load_vocabulary

    found: dict[str, Vocabulary] = {directory: load_vocabulary(Path(directory)) for directory in arguments.tokenizer}
    if arguments.characters:
        found |= _learnt([read_text(arguments.characters)], arguments.vocabulary_size, ("characters",))
    if arguments.words:
        found |= _learnt([read_text(arguments.words)], arguments.vocabulary_size, ("words", "words-jieba"))
    if arguments.learn:
        found |= _learnt(_sample(arguments), arguments.vocabulary_size, KINDS)
    if found:
        return found
    from duihua.data.records import record_text
    from duihua.data.tiny_source import TinyText

    texts = [record_text(record) for record in TinyText(Path()).records("train")]
    console.warn(
        "Learnt from the package's small sample; --learn SOURCE (`duihua data list`) or --tokenizer show real ones."
    )
    return _learnt(texts, min(arguments.vocabulary_size or SAMPLE_TOKENS, SAMPLE_TOKENS), KINDS)


def _sample(arguments: argparse.Namespace) -> list[str]:
    """A megabyte of each language of the source."""
    from duihua.data.home import data_directory
    from duihua.data.source import SourceConfig, open_source
    from duihua.stages.tokenizer import draw_sample

    config = SourceConfig(name=arguments.learn)
    source = open_source(config, data_directory(arguments.data))
    drawn = draw_sample([source], [config], "train", MEGABYTES, READ_MEGABYTES)
    return [text for texts in drawn.values() for text in texts]


def _learnt(texts: Sequence[str], size: int, kinds: Sequence[str]) -> dict[str, Vocabulary]:
    from duihua.text.characters import CharacterVocabulary
    from duihua.text.tokenizer import Tokenizer
    from duihua.text.words import WordVocabulary

    found: dict[str, Vocabulary] = {}
    for kind in kinds:
        if kind == "bytes":
            found[kind] = Tokenizer.train(texts, size or DEFAULT_SIZE)
        elif kind == "characters":
            found[kind] = CharacterVocabulary.train(texts, size)
        else:
            found[kind] = WordVocabulary.train(texts, size, "jieba" if kind == "words-jieba" else "marks")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua tokens",
        description="Show the same sentences under several vocabularies: tokens, ids, counts, unknowns, characters a token.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "text", metavar="TEXT", nargs="*", help="sentences; - for the lines of standard input (default: two examples)"
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        action="append",
        default=[],
        help="a tokenizer, vocabulary or model; may be repeated",
    )
    parser.add_argument("--characters", metavar="FILE", default="", help="learn a character vocabulary from this text")
    parser.add_argument(
        "--words", metavar="FILE", default="", help="learn word vocabularies from this text (also by jieba)"
    )
    parser.add_argument(
        "--learn", metavar="SOURCE", default="", help="learn every kind from a source of text (race-text)"
    )
    parser.add_argument(
        "--vocabulary-size",
        metavar="N",
        type=int,
        default=DEFAULT_SIZE,
        help="most ids of those that are learnt (default 10,000; 0 for all words or characters)",
    )
    parser.add_argument(
        "--data", metavar="DIR", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    parser.add_argument("--html", metavar="FILE", default="", help="write a page that opens in a browser")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
