"""Control strings in what people write, hidden while a template is rendered.

Why: a template must see the real text, which it may trim or split, but a control string in it must not come out as if the
template had put it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class Shield:
    """Replaces control strings in messages by placeholders that occur in none of them, and back."""

    def __init__(self, control: re.Pattern[str], contents: Iterable[str]) -> None:
        self._control = control
        self._found: list[str] = []
        contents = list(contents)
        number = 0
        while any(f"\ue000{number}." in content for content in contents):
            number += 1
        self._key = number
        self._mark = re.compile(f"\ue000{number}\\.(\\d+)\ue001")

    def cover(self, content: str) -> str:
        return self._control.sub(self._take, content)

    def cover_all(self, value: Any) -> Any:
        """`value` (as JSON has it) with all its strings covered."""
        if isinstance(value, str):
            return self.cover(value)
        if isinstance(value, list):
            return [self.cover_all(part) for part in value]
        if isinstance(value, dict):
            return {self.cover_all(key): self.cover_all(part) for key, part in value.items()}
        return value

    def uncover(self, text: str) -> str:
        return self._mark.sub(lambda match: self._found[int(match.group(1))], text) if self._found else text

    def _take(self, match: re.Match[str]) -> str:
        self._found.append(match.group())
        return f"\ue000{self._key}.{len(self._found) - 1}\ue001"
