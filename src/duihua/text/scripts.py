"""Scripts that put no spaces between words, as a range for a regular expression's brackets.

Why: what cuts text into units (to count repeated ones, to spoil a reply) must take single characters there; taken by spaces and
marks, a Chinese clause would be one word.
"""

from __future__ import annotations

UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
"""Kana, Chinese characters with their extensions, and Hangul, of which a syllable is as much as a character."""
