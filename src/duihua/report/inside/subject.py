"""What the pictures are about: a model, a translation model, a run, measurements, and a sentence.

Why each part is opened only when a picture asks for it: most pictures need none of them, and a model takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua.errors import ConfigError, DataError
from duihua.files import read_json
from duihua.report.inside.picture import Need
from duihua.report.inside.style import Language
from duihua.training.metrics_file import read_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from duihua.models.capture import Captured
    from duihua.models.decoder import Decoder
    from duihua.text.tokenizer import Tokenizer

SENTENCES: dict[Language, str] = {"en": "I love you, and you love me.", "zh": "我爱你，你也爱我。"}
LOVE = "我爱你"
ECONOMIC_AREA = "The agreement on the European Economic Area was signed in August 1992."
MOST_TOKENS = 64
"""Longer texts make matrices that nobody can read."""
STAGE_FILES = ("result.json", "metrics.jsonl")
VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Look:
    """One text in one model. tokens: readable labels. inside: what was captured. logits_tv: of the only row."""

    network: Decoder
    tokenizer: Tokenizer
    text: str
    ids: list[int]
    tokens: list[str]
    inside: Captured
    logits_tv: Tensor

    def label(self, id: int) -> str:
        """A token of the vocabulary as a person can read it."""
        return token_label(self.tokenizer.token_bytes(id))


@dataclass
class Subject:
    """Where to find what. text: None for each picture's own sentence. target: a translation to be looked at, None for the
    translator's own."""

    model: Path | None = None
    translator: Path | None = None
    recurrent: Path | None = None
    metrics: Mapping[str, Path] = field(default_factory=dict)
    measurements: Sequence[Path] = ()
    text: str | None = None
    target: str | None = None
    language: Language = "en"

    def lacks(self, need: Need | None) -> bool:
        """Whether something that a picture needs was not given."""
        return need is not None and not getattr(self, need)

    def sentence(self) -> str:
        """The text to look at."""
        return SENTENCES[self.language] if self.text is None else self.text

    @cached_property
    def _model(self) -> tuple[Decoder, Tokenizer]:
        from duihua.models.bundle import load_bundle

        assert self.model is not None
        bundle = load_bundle(self.model)
        return bundle.policy, bundle.tokenizer

    @cached_property
    def look(self) -> Look:
        """The sentence in the model."""
        return look_at(*self._model, self.sentence())

    @cached_property
    def love(self) -> Look:
        """我爱你, or the user's text, in the model."""
        return look_at(*self._model, LOVE if self.text is None else self.text)

    def measured(self, holds: Sequence[str], what: str) -> dict[str, dict[str, Any]]:
        """The files that have one of the entries `holds`, by short names that differ (`short_names`); of a file of JSON lines
        the last such line. what: their content in words, for the DataError where there is none."""
        holding: dict[Path, dict[str, Any]] = {}
        for path in self.measurements:
            lines = path.suffix == ".jsonl" and path.is_file()
            for whole in read_metrics(path) if lines else [read_json(path)]:
                content = whole.get("metrics") if path.name == "result.json" and isinstance(whole, dict) else whole
                if isinstance(content, dict) and any(content.get(name) for name in holds):
                    holding[path.resolve()] = content
        found = dict(zip(short_names(list(holding)), holding.values(), strict=True))
        if not found:
            raise DataError(
                f"none of the files holds {what}",
                where="--measurements",
                remedy="Give the file that the measurement wrote",
            )
        return found


def short_names(files: Sequence[Path]) -> list[str]:
    """What each file is called in a legend: by its own name, a stage's file by its folder's. Where several would be called
    alike, as the stage folders of several runs are, all go by the folder above, or by both."""
    own = [file.parent if file.name in STAGE_FILES else file.with_suffix("") for file in files]
    for names in (
        [file.name for file in own],
        [file.parent.name for file in own],
        [f"{file.parent.name}/{file.name}" for file in own],
    ):
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]


def look_at(network: Decoder, tokenizer: Tokenizer, text: str, most: int = MOST_TOKENS) -> Look:
    """Run `text` through the network once and keep what it computed. Raises ConfigError where there is nothing to look at
    or more than can be seen, GenerationError beyond the model's context."""
    import torch

    from duihua.models.capture import captured

    ids = tokenizer.encode(text)
    if not ids:
        raise ConfigError("there is no text to look at", where="text", remedy="Give a sentence")
    if len(ids) > most:
        raise ConfigError(
            f"{len(ids)} tokens are more than the {most} that fit into a picture",
            where="text",
            remedy="Give a shorter text",
        )
    network.eval()
    with torch.no_grad(), captured(network) as inside:
        logits_tv = network(torch.tensor([ids], device=network.embedding.weight.device))[0].float()
    tokens = [token_label(tokenizer.token_bytes(id)) for id in ids]
    return Look(network, tokenizer, text, ids, tokens, inside, logits_tv)


def token_label(data: bytes) -> str:
    """A token's bytes as text: spaces and line ends visible, bytes that are no whole character in hexadecimal."""
    try:
        text = data.decode("utf-8").translate(VISIBLE)
    except UnicodeDecodeError:
        return "⟨" + data.hex(" ").upper() + "⟩"
    return "".join(letter if letter.isprintable() else f"⟨{ord(letter):04X}⟩" for letter in text) or "∅"


def rounded(tensor: Tensor, digits: int = 4) -> Any:
    """A tensor as nested lists of rounded numbers, None for what is not finite (JSON has no infinity)."""
    values = tensor.double().tolist()

    def shorten(value: Any) -> Any:
        if isinstance(value, list):
            return [shorten(one) for one in value]
        return round(value, digits) if math.isfinite(value) else None

    return shorten(values)
