"""GPT-2's byte alphabet: the 256 printable characters by which tokenizer.json writes the bytes of a token.

Why there is one: a JSON file cannot hold bytes that are no text, and a space or a line end at the edge of a token would be
lost on the way. Printable bytes stand for themselves, the others follow from U+0100 on, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _alphabet() -> dict[str, int]:
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(kept)]
    return {chr(byte): byte for byte in kept} | {chr(256 + n): byte for n, byte in enumerate(moved)}


BYTE_OF_CHARACTER: Mapping[str, int] = MappingProxyType(_alphabet())


def bytes_of_name(name: str) -> bytes:
    """The bytes of the token that tokenizer.json calls `name`; an added token, whose name is plain text, gives its UTF-8."""
    try:
        return bytes(BYTE_OF_CHARACTER[character] for character in name)
    except KeyError:  # characters outside the alphabet
        return name.encode("utf-8")
