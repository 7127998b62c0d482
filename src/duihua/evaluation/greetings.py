"""Does a reply to a greeting or simple question match one of the replies that the data gives?

Why so strict: "sounds fine" cannot be checked. A reply matches when it equals a reference after both are normalised;
nothing fuzzy, so a count of matches means the same on every machine.

What the normalisation takes away, and nothing else: width (full-width letters, digits and punctuation become
half-width, by Unicode NFKC), letter case, punctuation (Unicode categories P*), white space and control characters
(Z*, C*). Symbols such as + or = stay, for 1+1 is not 11.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence


def normalise(text: str) -> str:
    """`text` without differences of case, width, punctuation and white space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if unicodedata.category(character)[0] not in "PZC")


def matches(reply: str, references: Iterable[str]) -> bool:
    """True when the reply equals a reference after `normalise`; a reply of which nothing is left never matches."""
    said = normalise(reply)
    return bool(said) and any(said == normalise(reference) for reference in references)


def greetings_report(
    prompts: Sequence[str], replies: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, object]:
    """Replies judged one by one: {matched, total, items: [{prompt, reply, matched}]}."""
    items = [
        {"prompt": prompt, "reply": reply, "matched": matches(reply, known)}
        for prompt, reply, known in zip(prompts, replies, references, strict=True)
    ]
    return {"matched": sum(bool(item["matched"]) for item in items), "total": len(items), "items": items}
