"""The translator that one asks: sentences in, translations out. The command line, the stage and the server use it.

A translator's folder is its bundle (models/translation_bundle.py). One that has learnt several directions has
`translation.json` besides: which they are, and the tags that ask for a language. It is written before the bundle, whose
config.json comes last, so that half a translator is never read as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from duihua.engine.beam_search import beam_search, never
from duihua.engine.beam_settings import BeamSettings
from duihua.errors import BundleError, ConfigError, GenerationError
from duihua.files import write_json
from duihua.models.model_card import ModelCard
from duihua.models.translation_bundle import is_translator, load_translator, save_translator
from duihua.models.translator import Translator
from duihua.models.weights import read_object
from duihua.text.tokenizer import Tokenizer
from duihua.text.translation_inputs import TranslationInputs

FILE, FORMAT = "translation.json", 1
Direction = tuple[str, str]


@dataclass(frozen=True)
class Translation:
    """One translation. score: with the length penalty, what hypotheses are compared by; log_probability: in nats. tokens: that
    were written, the end token included. cut_tokens: of the source that were left out because it was too long."""

    text: str
    score: float
    log_probability: float
    tokens: int
    cut_tokens: int = 0


NOTHING = Translation("", 0.0, 0.0, 0)
"""The translation of an empty line: nothing, so that lines keep their places."""


class TranslationModel:
    """A network, its tokenizer and what it was taught. directions: (language read, language written)."""

    def __init__(
        self,
        network: Translator,
        inputs: TranslationInputs,
        directions: Sequence[Direction],
        directory: Path | None = None,
    ) -> None:
        self.network, self.inputs, self.directions = network, inputs, tuple(directions)
        self.directory = directory
        self.terms: list[dict[str, str]] = []

    @classmethod
    def load(cls, directory: str | Path, device: str = "cpu") -> TranslationModel:
        """Read a translator's folder, or the one translator of a run's. Raises BundleError for anything else."""
        directory = _translator_in(Path(directory))
        bundle = load_translator(directory, device)
        directions, tags = _read(directory / FILE) if (directory / FILE).is_file() else ([bundle.languages], {})
        model = cls(bundle.network, TranslationInputs(bundle.tokenizer, tags), directions, directory)
        model.terms = [dict(each) for each in bundle.terms]
        return model

    def direction(self, from_language: str = "", to_language: str = "") -> Direction:
        """The direction that is meant; an empty name stands for whatever the model has. ConfigError where it has none, or
        several, of that description."""
        found = [each for each in self.directions if from_language in ("", each[0]) and to_language in ("", each[1])]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{source} to {target}" for source, target in self.directions)
        asked = f"{from_language or 'any language'} to {to_language or 'any language'}"
        raise ConfigError(
            f"the model does not translate {asked}" if not found else "the model translates several ways",
            where="direction",
            remedy=f"It translates {known}" if not found else f"Say which: {known}",
        )

    def encode(
        self, texts: Sequence[str], direction: Direction, cut: bool = False
    ) -> list[tuple[tuple[int, ...], int]]:
        """(ids, tokens that were cut) of each text. Raises GenerationError naming the text that is too long, unless `cut`."""
        most = self.network.config.most_tokens
        encoded = []
        for number, ids in enumerate(self.inputs.sources(texts, direction[1])):
            over = max(0, len(ids) - most)
            if over and not cut:
                raise GenerationError(
                    f"{len(ids):,} tokens, and the model reads {most:,}",
                    where=f"text {number + 1}",
                    remedy="Split it into sentences",
                )
            encoded.append((ids if not over else (*ids[: most - 1], self.inputs.end_id), over))
        return encoded

    def translate(
        self,
        texts: Sequence[str],
        direction: Direction,
        settings: BeamSettings | None = None,
        cut: bool = False,
        advance: Callable[[int], None] | None = None,
        stop: Callable[[], bool] = never,
    ) -> list[list[Translation]]:
        """The best translations of each text, best first, in the order of the texts; of an empty one `NOTHING`. stop: as in
        `beam_search`."""
        asked = [number for number, text in enumerate(texts) if text.strip()]
        encoded = self.encode([texts[number] for number in asked], direction, cut)
        found = beam_search(
            self.network, [ids for ids, _ in encoded], settings or BeamSettings(stopping="estimate"), advance, stop
        )
        answers: list[list[Translation]] = [[NOTHING] for _ in texts]
        for number, (_, over), hypotheses in zip(asked, encoded, found, strict=True):
            answers[number] = [
                Translation(self.inputs.text(best.ids), best.score, best.log_probability, len(best.ids) + 1, over)
                for best in hypotheses
            ]
        return answers

    def save(self, directory: Path, card: ModelCard) -> None:
        """Write what `load` reads. Raises BundleError where it cannot."""
        (directory / "config.json").unlink(missing_ok=True)
        (directory / FILE).unlink(missing_ok=True)
        if len(self.directions) > 1:
            directions = [list(each) for each in self.directions]
            write_json(directory / FILE, {"format": FORMAT, "directions": directions, "tags": self.inputs.tags})
        save_translator(directory, self.network, self.inputs.tokenizer, self.directions[0], card)


def greedy(settings: BeamSettings | None = None) -> BeamSettings:
    """The quickest search: the likeliest token each time. Of `settings` the lengths are kept."""
    kept = settings or BeamSettings()
    return BeamSettings(
        beam=1, length_penalty="none", max_ratio=kept.max_ratio, max_extra=kept.max_extra,
        batch_sentences=max(128, kept.batch_sentences),
    )  # fmt: skip


def model_inputs(tokenizer: Tokenizer, directions: Sequence[Direction]) -> TranslationInputs:
    """How a model of these directions reads: with tags where there are several."""
    from duihua.text.translation_inputs import tags_for

    several = len(directions) > 1
    return TranslationInputs(tokenizer, tags_for(tokenizer, [target for _, target in directions]) if several else {})


def _translator_in(directory: Path) -> Path:
    """The folder of the translator that `directory` means: itself, or in a run's folder the only one below it."""
    if is_translator(directory):
        return directory
    below = sorted(child for child in directory.iterdir() if is_translator(child)) if directory.is_dir() else []
    if len(below) == 1:
        return below[0]
    problem = "holds no translator" if directory.is_dir() else "no such directory"
    raise BundleError(
        "holds several translators" if below else problem,
        where=str(directory),
        remedy=f"Name one: {', '.join(map(str, below))}"
        if below
        else "Name a folder that `duihua translate train` wrote",
    )


def _read(path: Path) -> tuple[list[Direction], dict[str, int]]:
    stored = read_object(path)
    if stored.get("format") != FORMAT:
        raise BundleError(
            f"format {stored.get('format')!r}, and this duihua reads {FORMAT}",
            where=str(path),
            remedy="Use the duihua that wrote it, or train the translator again",
        )
    directions, tags = stored.get("directions"), stored.get("tags")
    right = (
        isinstance(directions, list)
        and bool(directions)
        and all(
            isinstance(each, list) and len(each) == 2 and all(isinstance(x, str) for x in each) for each in directions
        )
        and isinstance(tags, dict)
        and all(isinstance(tag, int) for tag in tags.values())
        and (len(directions) == 1 or {each[1] for each in directions} <= set(tags))
    )
    if not right:
        raise BundleError("is not a description of a translator", where=str(path), remedy="Train the translator again")
    assert isinstance(directions, list) and isinstance(tags, dict)
    return [(each[0], each[1]) for each in directions], dict(tags)
