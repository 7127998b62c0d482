"""A quicker way to the same ids: fastokens beside the library that the tokenizer is stored in, where both agree.

Why two: `tokenizers` reads every tokenizer there is, and its ids are the ones that count; fastokens reads the usual kinds of
byte-level BPE from the same file and takes a tenth of the time or less for them (benchmarks/tokenizer.py). Why a probe: it
splits text by another engine of patterns, which may know another version of Unicode, and merges in its own way, so before it
is used, it has to read a text as the other does in which each kind of character stands in every place that the pattern looks
at, and every token of the vocabulary. Where it does not, or where the tokenizer does something to the text that is rare and
therefore untried, there is no quick way, and nothing changes but the time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import fastokens
import tokenizers

from duihua.text.byte_alphabet import BYTE_OF_CHARACTER, bytes_of_name

_NEW_CHARACTERS = (
    "\U00010e80\U00011950\U00010570\U00016ac0\U00011f04\U00011f50\U0002ebf0\u1c89\U00010d40\U000323b0\U00011de0"
)
"""A letter and a digit of Unicode 13, 14 and 15, a letter of 15.1, a letter and a digit of 16 and 17."""
PROBE = "".join(f"a{c}1{c} {c}'s  \r\n{c}!{c}\t" for c in "aé你1٣ſ\u0301\u00a0\u3000" + _NEW_CHARACTERS)
"""What both must read alike: each character behind a letter, a digit and a space, so that its class shows."""


def fast_encoder(backend: tokenizers.Tokenizer) -> fastokens.Tokenizer | None:
    """fastokens' form of `backend`, giving the same ids for every text by `encode_ordinary` and by batches with
    `split_special_tokens`; None where it is not known to.

    Costs about a tenth of a second for 8,192 tokens. Control tokens are plain text to it, as they are to `backend`, whose
    `encode_special_tokens` must be on.
    """
    source = backend.to_str()
    stored = json.loads(source)
    if not backend.encode_special_tokens or not _usual(stored):
        return None
    try:
        made = fastokens.Tokenizer.from_json_str(source)
    except ValueError:  # something that only the other engine reads
        return None
    probe = PROBE + "\n".join(_texts(stored["model"]["vocab"]))
    expected = backend.encode(probe, add_special_tokens=False).ids
    batch = made.encode_batch([PROBE, probe], split_special_tokens=True)
    agree = made.encode_ordinary(probe).ids == expected and batch[1].ids == expected
    return made if agree else None


def _usual(stored: Mapping[str, Any]) -> bool:
    """Whether all that is done to a text is at most NFC, splitting by patterns, bytes and merges."""
    model, normalizer = stored["model"], stored["normalizer"]
    plain = model["type"] == "BPE" and not model.get("dropout") and not model.get("byte_fallback")
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if not plain or affixes or (normalizer is not None and normalizer["type"] != "NFC"):
        return False
    if not set(BYTE_OF_CHARACTER) <= set(model["vocab"]):  # what becomes of a byte without a token is untried
        return False
    if not all(token["special"] for token in stored["added_tokens"]):  # others are found in the text
        return False
    first = stored["pre_tokenizer"] or {}
    steps = first.get("pretokenizers", [first])
    return bool(steps) and all(map(_usual_step, steps)) and steps[-1]["type"] == "ByteLevel"


def _usual_step(step: Mapping[str, Any]) -> bool:
    if step.get("type") == "Split":
        return step["behavior"] == "Isolated" and not step["invert"] and "Regex" in step["pattern"]
    return step.get("type") == "ByteLevel" and not step["add_prefix_space"]


def _texts(names: Iterable[str]) -> list[str]:
    """What each token holds of whole characters, where it holds any."""
    found = (bytes_of_name(name).decode("utf-8", "ignore") for name in names)
    return [text for text in found if text]
