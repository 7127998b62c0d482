"""A translator behind the API: one request at a time, and only so many that wait.

As for classifiers (`served_classifier.py`), a lock is enough: a request is searched for as one batch, over in well under a
second for a few sentences, and the limit on those who wait keeps a flood from filling the server's threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from duihua.engine.service import EngineBusy

if TYPE_CHECKING:
    from duihua.engine.beam_settings import BeamSettings
    from duihua.engine.translation_model import Translation, TranslationModel


@dataclass(frozen=True)
class TranslatorCard:
    """What the API says about a translator. context_length: most tokens of a text. directions: (read, written)."""

    name: str
    parameters: int
    context_length: int
    directions: tuple[tuple[str, str], ...]
    created: int = field(default_factory=lambda: int(time.time()))


class ServedTranslator:
    """A translator and its card. May be called from any thread. waiting: requests now, the one answered included."""

    def __init__(self, name: str, model: TranslationModel, most_waiting: int) -> None:
        self._model, self._most = model, most_waiting
        self._work, self._count, self.waiting = threading.Lock(), threading.Lock(), 0
        network = model.network
        self.card = TranslatorCard(
            name=name,
            parameters=sum(weight.numel() for weight in network.parameters()),
            context_length=network.config.most_tokens,
            directions=model.directions,
        )

    def direction(self, from_language: str, to_language: str) -> tuple[str, str]:
        """The direction that is meant. Raises ConfigError where the model has none, or several, of that description."""
        return self._model.direction(from_language, to_language)

    def tokens(self, texts: Sequence[str], direction: tuple[str, str]) -> int:
        """How many the texts are. Raises GenerationError naming the text that is too long."""
        return sum(len(ids) for ids, _ in self._model.encode(texts, direction))

    def translate(
        self, texts: Sequence[str], direction: tuple[str, str], settings: BeamSettings
    ) -> list[list[Translation]]:
        """Answer in the order of the texts. Raises EngineBusy when too many wait already."""
        with self._count:
            if self.waiting > self._most:
                raise EngineBusy(f"{self._most} requests wait for {self.card.name} already")
            self.waiting += 1
        try:
            with self._work:
                return self._model.translate(texts, direction, settings)
        finally:
            with self._count:
                self.waiting -= 1
