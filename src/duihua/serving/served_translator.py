"""A translator behind the API: a request is searched for as one batch, over in well under a second for a few sentences, so
that requests take turns (`turns.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from duihua.engine.beam_search import never
from duihua.serving.turns import Turns

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
    """A translator and its card. May be called from any thread."""

    def __init__(self, name: str, model: TranslationModel, most_waiting: int) -> None:
        self._model = model
        self.turns = Turns(name, most_waiting)
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

    def shown(self, write: Callable[[TranslationModel], str]) -> str:
        """What `write` makes of the translator, when its turn comes. Raises EngineBusy when too many wait already."""
        with self.turns.take(never):
            return write(self._model)

    def translate(
        self, texts: Sequence[str], direction: tuple[str, str], settings: BeamSettings, stop: Callable[[], bool] = never
    ) -> list[list[Translation]]:
        """Answer in the order of the texts. stop: whether nobody waits for the answer any more; asked while others are answered
        and at each step of the search. Raises EngineBusy when too many wait already, GivenUp or SearchStoppedError where
        `stop` says so."""
        with self.turns.take(stop):
            return self._model.translate(texts, direction, settings, stop=stop)
