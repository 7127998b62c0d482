"""`duihua data words`: a corpus of words for language models, built or looked at, with its counts and SHA-256.

duihua data words                       build the wiki words below the data directory
duihua data words --output DIR          the same files elsewhere, for other programs
duihua data words --ptb DIR             look at your own three files in the Penn Treebank's form
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from duihua import console
from duihua.data.home import data_directory


def add_verb(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add `words` to the verbs of `duihua data`."""
    verb = verbs.add_parser("words", parents=[common], help="10,000 words of English in the Penn Treebank's form")
    verb.add_argument(
        "--ptb", metavar="DIR", default="", help="look at ptb.train.txt, ptb.valid.txt, ptb.test.txt here"
    )
    verb.add_argument("--output", metavar="DIR", default="", help="write the three files here as well")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build or read, then say what there is. Returns 0. Raises DataError naming file and line."""
    from duihua.data.starter.wiki_words import WikiWords
    from duihua.data.word_corpus import FILES, PARTS, TREEBANK_TOKENS, read_word_corpus
    from duihua.files import write_atomic

    source = None
    if arguments.ptb:
        folder = Path(arguments.ptb).expanduser()
        corpus = read_word_corpus(folder)
    else:
        source = WikiWords(data_directory(arguments.data))
        corpus, folder = source.corpus(), source.folder
    if arguments.output:
        for part in PARTS:
            write_atomic(Path(arguments.output).expanduser() / FILES[part], (folder / FILES[part]).read_bytes())
        folder = Path(arguments.output).expanduser()
    if console.json_mode():
        console.emit_json({"directory": str(folder), **corpus.describe()})
        return 0
    unknown = corpus.unknown_share
    console.table(
        f"{corpus.name}: {corpus.vocabulary.vocabulary_size:,} types, ends of sentences counted as tokens",
        ["file", "sentences", "tokens", "unknown", "sha256"],
        [
            [FILES[p], corpus.sentences[p], corpus.tokens[p], f"{100 * unknown[p]:.1f} %", corpus.sha256[p]]
            for p in PARTS
        ],
    )
    console.say(f"In {folder}")
    if arguments.ptb:
        original = " / ".join(f"{count:,}" for count in TREEBANK_TOKENS.values())
        same = "the counts of the original" if corpus.is_treebank else f"not the original, which has {original} tokens"
        console.say(f"These are {same}.")
    if source is not None:
        console.say(f"licence: {source.terms.licence}; {source.terms.attribution}")
    return 0
