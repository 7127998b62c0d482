"""The same sentences under several vocabularies: every token with its id, and what each vocabulary costs and does not know.

Why side by side: that a tokenizer is a choice is seen at once when one sentence is 11 words, 58 characters or 14 tokens, when
a word vocabulary has no entry for the one word that matters, and when a rare character comes apart into bytes.

A view is plain JSON; the terminal (`show`) and the page (report/token_page.py) draw the same object:

    {"vocabularies": [{"name", "kind", "ids"}],
     "texts": [{"text", "characters", "bytes",
                "rows": [{"vocabulary", "tokens", "unknown", "characters_per_token",
                          "spans": [{"start", "end", "id", "text", "known", "whole"}]}]}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from duihua import console
from duihua.text.characters import CharacterVocabulary
from duihua.text.vocabulary import Vocabulary
from duihua.text.words import WordVocabulary

EXAMPLES = (
    "Unbelievably, the researchers' chatbot couldn't pronounce Llanfairpwllgwyngyll 🙂",
    "我爱自然语言处理，南京市长江大桥上有饕餮吗？",
)
"""A long word, an apostrophe, a name that no list has, and an emoji; and a sentence whose words a reader must find, with
two rare characters."""

TITLES = {
    "bytes": "byte-level BPE",
    "characters": "characters",
    "words": "words",
    "words-jieba": "words by jieba",
}
COLOURS = ("on #cfe8e4", "on #f6e3c5", "on #d9def5", "on #f3d6dd", "on #dcecc9")
UNKNOWN_COLOUR = "bold white on #a3262a"
_PICTURES = console.PICTURES | {9: "⇥", 10: "⏎", 13: "⏎"}


def kind_of(vocabulary: Vocabulary) -> str:
    """ "bytes", "characters", "words" or "words-jieba"."""
    if isinstance(vocabulary, CharacterVocabulary):
        return "characters"
    if isinstance(vocabulary, WordVocabulary):
        return "words-jieba" if vocabulary.segmentation == "jieba" else "words"
    return "bytes"


def token_view(texts: Sequence[str], vocabularies: Mapping[str, Vocabulary]) -> dict[str, Any]:
    """The view of `texts` under `vocabularies` (name -> vocabulary), in their order."""
    return {
        "vocabularies": [
            {"name": name, "kind": kind_of(each), "ids": each.vocabulary_size} for name, each in vocabularies.items()
        ],
        "texts": [
            {
                "text": text,
                "characters": len(text),
                "bytes": len(text.encode("utf-8", "replace")),
                "rows": [_row(text, name, each) for name, each in vocabularies.items()],
            }
            for text in texts
        ],
    }


def _row(text: str, name: str, vocabulary: Vocabulary) -> dict[str, Any]:
    spans = vocabulary.spans(text)
    return {
        "vocabulary": name,
        "tokens": len(spans),
        "unknown": sum(not span.known for span in spans),
        "characters_per_token": len(text) / len(spans) if spans else None,
        "spans": [asdict(span) for span in spans],
    }


def token_costs(texts: Sequence[str], vocabulary: Vocabulary) -> dict[str, float | None]:
    """Over all `texts`: characters a token, and the share of tokens that are unknown; None without text."""
    encoded = vocabulary.encode_batch(texts)
    tokens = sum(map(len, encoded))
    unknown = sum(ids.count(vocabulary.unknown_id) for ids in encoded if vocabulary.unknown_id is not None)
    characters = sum(map(len, texts))
    return {
        "characters_per_token": characters / tokens if tokens else None,
        "unknown_share": unknown / tokens if tokens else None,
    }


def visible(text: str) -> str:
    """Text with line ends, tabs and other control characters as pictures, so that a token cannot steer a terminal."""
    return text.translate(_PICTURES)


def title_of(vocabulary: Mapping[str, Any]) -> str:
    """What a vocabulary of a view is called in a terminal: its kind, and its name where that says more."""
    title = TITLES[vocabulary["kind"]]
    return title if vocabulary["name"] in (vocabulary["kind"], title) else f"{title}, {vocabulary['name']}"


def show(view: Mapping[str, Any]) -> None:
    """Print a view: on a terminal each token on its own colour, elsewhere between bars."""
    titles = {each["name"]: f"{title_of(each)} ({each['ids']:,} ids)" for each in view["vocabularies"]}
    for number, one in enumerate(view["texts"]):
        console.say(("\n" if number else "") + visible(one["text"]))
        console.say(f"{one['characters']:,} characters, {one['bytes']:,} bytes")
        for row in one["rows"]:
            per_token = row["characters_per_token"]
            rate = "" if per_token is None else f", {per_token:.2f} characters a token"
            unknown = f", {row['unknown']:,} unknown" if row["unknown"] else ""
            console.say(f"\n  {titles[row['vocabulary']]}: {row['tokens']:,} tokens{unknown}{rate}")
            console.pieces([_piece(place, span) for place, span in enumerate(row["spans"])], indent="  ")
            console.say("  ids " + " ".join(str(span["id"]) for span in row["spans"]))
    kinds = {
        "unknown": any(not span["known"] for span in _all_spans(view)),
        "parts": any(not span["whole"] for span in _all_spans(view)),
    }
    console.say()
    if kinds["unknown"]:
        console.say("<unk:...>  the vocabulary has no entry; all of these share one id, and cannot be written back")
    if kinds["parts"]:
        console.say("<E6 88>    bytes that are only a part of a character")


def _piece(place: int, span: Mapping[str, Any]) -> tuple[str, str]:
    """Text and colour of a token."""
    if not span["known"]:
        return f"<unk:{visible(span['text'])}>", UNKNOWN_COLOUR
    colour = f"black {COLOURS[place % len(COLOURS)]}"
    return visible(span["text"]), colour if span["whole"] else f"italic {colour}"


def _all_spans(view: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [span for one in view["texts"] for row in one["rows"] for span in row["spans"]]
