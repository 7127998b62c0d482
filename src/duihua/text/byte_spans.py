"""Where byte-level tokens stand in a text, shown honestly.

Why it needs saying: a byte-level token is a run of bytes, and a Chinese character is three of them. A rare character comes
out as two or three tokens, none of which is a character; a viewer that decodes each by itself shows replacement marks, and one
that hides them shows a character three times. Here such a token names the characters that it touches, is marked as no whole
one, and shows the bytes that are no character by their hexadecimal values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from duihua.text.vocabulary import Span


def spans_of_bytes(text: str, ids: Sequence[int], pieces: Sequence[bytes]) -> list[Span]:
    """The spans of tokens whose bytes, joined, are those of `text`."""
    widths = np.fromiter((len(character.encode("utf-8")) for character in text), dtype=np.int64, count=len(text))
    ends_n = np.cumsum(widths)  # byte at which each character ends
    starts_n = ends_n - widths
    spans: list[Span] = []
    at = 0
    for id, piece in zip(ids, pieces, strict=True):
        first = int(np.searchsorted(ends_n, at, side="right"))
        last = int(np.searchsorted(ends_n, at + len(piece) - 1, side="right")) if piece else first - 1
        whole = not piece or (int(starts_n[first]) == at and int(ends_n[last]) == at + len(piece))
        spans.append(Span(first, last + 1, id, text[first : last + 1] if whole else shown_bytes(piece), True, whole))
        at += len(piece)
    return spans


def offset_spans(
    text: str, ids: Sequence[int], pieces: Sequence[bytes], offsets: Sequence[tuple[int, int]]
) -> list[Span]:
    """The spans of a tokenizer that changes the text before cutting it, by the places that it gives itself."""
    spans = []
    for id, piece, (start, end) in zip(ids, pieces, offsets, strict=True):
        whole = _is_text(piece)
        spans.append(Span(start, end, id, piece.decode("utf-8") if whole else shown_bytes(piece), True, whole))
    return spans


def shown_bytes(piece: bytes) -> str:
    """Whole characters as they are, other bytes as `<E6 88>`."""
    shown, broken = "", b""
    at = 0
    while at < len(piece):
        width = next((n for n in (1, 2, 3, 4) if _is_text(piece[at : at + n]) and at + n <= len(piece)), 0)
        if not width:
            broken += piece[at : at + 1]
            at += 1
            continue
        shown += _hexadecimal(broken) + piece[at : at + width].decode("utf-8")
        broken = b""
        at += width
    return shown + _hexadecimal(broken)


def _hexadecimal(piece: bytes) -> str:
    return f"<{piece.hex(' ').upper()}>" if piece else ""


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
