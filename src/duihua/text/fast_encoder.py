"""A quicker way to the same ids: tiktoken beside the library that the tokenizer is stored in, where both provably agree.

Why two: `tokenizers` reads every tokenizer there is, and takes several times as long as tiktoken for
the ids of plain byte-level BPE (benchmarks/tokenizer.py). Why it needs a proof: tiktoken knows no merges. It joins the two
neighbours whose bytes together are the token of the lowest id, whichever pair that token was learnt from. The results are
the same where

1. the ids of merged tokens rise in the order of the merges, so that both try the same tokens first, and
2. every token, given as a piece of its own, is encoded as itself.

Say that tiktoken joined x and y into a token t that was learnt from another pair, and that until then both had done the same.
Then no merge has crossed the edges of xy, so the piece xy alone would come to the same two tokens and stay there, since x and
y are no merge; but xy is t, which by (2) is encoded as t. So it never does, and by (1) both go the same way, leftmost first.

What splits the text is the same pattern in two engines. They can differ in which characters they know to be letters, so
letters and digits of the last versions of Unicode are tried. Where anything does not hold there is no quick way, and
nothing changes but the time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import tiktoken
import tokenizers

from duihua.text.byte_alphabet import BYTE_OF_CHARACTER, bytes_of_name

_NEW_CHARACTERS = (
    "\U00010e80\U00011950\U00010570\U00016ac0\U00011f04\U00011f50\U0002ebf0\u1c89\U00010d40\U000323b0\U00011de0"
)
"""A letter and a digit of Unicode 13, 14 and 15, a letter of 15.1, a letter and a digit of 16 and 17."""
PROBE = "".join(f"a{c}1{c} {c}'s  \r\n{c}!{c}\t" for c in "aé你1٣ſ\u00a0\u3000" + _NEW_CHARACTERS)
"""What both must read alike: each character behind a letter, a digit and a space, so that its class shows."""


def fast_encoder(backend: tokenizers.Tokenizer) -> tiktoken.Encoding | None:
    """tiktoken's form of `backend`, giving the same ids for every text, or None where that cannot be shown.

    Costs about a tenth of a second for 8,192 tokens. Control tokens are plain text to it, as they are to `backend`, whose
    `encode_special_tokens` must be on.
    """
    stored = json.loads(backend.to_str())
    model, pattern = stored["model"], _pattern(stored)
    names = {token["content"] for token in stored["added_tokens"] if token["special"]}
    if pattern is None or len(names) < len(stored["added_tokens"]) or not backend.encode_special_tokens:
        return None
    vocabulary = {name: id for name, id in model["vocab"].items() if name not in names}
    if not _in_order(model["merges"], vocabulary) or not set(BYTE_OF_CHARACTER) <= set(vocabulary):
        return None
    if any([token.id for token in backend.model.tokenize(name)] != [id] for name, id in vocabulary.items()):
        return None
    ranks = {bytes_of_name(name): id for name, id in vocabulary.items()}
    try:
        made = tiktoken.Encoding("duihua", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    except ValueError:  # a pattern that only the other engine reads
        return None
    return made if made.encode_ordinary(PROBE) == backend.encode(PROBE, add_special_tokens=False).ids else None


def _pattern(stored: Mapping[str, Any]) -> str | None:
    """What the text is split by, where the tokenizer does nothing else to it than bytes and merges."""
    model = stored["model"]
    plain = model["type"] == "BPE" and not model.get("dropout") and not model.get("byte_fallback")
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if not plain or affixes or stored["normalizer"] is not None:
        return None
    if stored["post_processor"] is not None and stored["post_processor"]["type"] != "ByteLevel":
        return None
    steps = (stored["pre_tokenizer"] or {}).get("pretokenizers", ())
    if [step["type"] for step in steps] != ["Split", "ByteLevel"]:
        return None
    split, to_bytes = steps
    if split["behavior"] != "Isolated" or split["invert"] or to_bytes["add_prefix_space"] or to_bytes["use_regex"]:
        return None
    pattern = split["pattern"].get("Regex")
    return pattern if isinstance(pattern, str) else None


def _in_order(merges: Sequence[Sequence[str] | str], vocabulary: Mapping[str, int]) -> bool:
    """Whether each merge makes a token of a higher id than the merge before, and all other tokens are single bytes."""
    joined = ["".join(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]
    ids = [vocabulary.get(name, -1) for name in joined]
    rising = all(before < after for before, after in pairwise([-1, *ids]))
    return rising and {name for name in vocabulary if len(name) > 1} == set(joined)
