"""A trained reward model as something to ask: a prompt and a reply in, a number out.

The number is the one that PPO sees: read at the stop token, less the stored mean, over the stored deviation. What is longer
than the model reads loses the beginning of its prompt, as in training, and says how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duihua.data.records import Message
from duihua.errors import DataError
from duihua.models.bundle import Bundle, load_bundle
from duihua.stages.prompts import encode_pair_side
from duihua.stages.scoring import score_rows
from duihua.text.chat_template import ChatTemplate


@dataclass(frozen=True)
class Scored:
    """score: normalised, 0 is the average reply of the reference policy; raw: as the network gives it; tokens read; tokens of
    the prompt that were cut off at its beginning."""

    score: float
    raw: float
    tokens: int
    cut_tokens: int


class RewardModel:
    """Scores replies with a reward bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises BundleError where the bundle has no score."""
        self.bundle, self.template = bundle, ChatTemplate(bundle.tokenizer)
        self.network = bundle.reward.eval()
        known = bundle.normalisation
        self.mean, self.deviation = (known.mean, known.standard_deviation) if known else (0.0, 1.0)

    @classmethod
    def load(cls, directory: Path | str, device: str = "cpu") -> RewardModel:
        """The reward model of a bundle. Raises BundleError."""
        return cls(load_bundle(Path(directory), device))

    def score(self, items: Sequence[tuple[Sequence[Message], str]]) -> list[Scored]:
        """The score of each (prompt ending with the user's message, reply). Raises DataError for a reply that alone is too
        long."""
        rows, cut = [], []
        for prompt, reply in items:
            ids, own = encode_pair_side(prompt, reply, self.template)
            most = self.bundle.config.context
            if own >= most:
                raise DataError(
                    f"a reply of {own} tokens, and the model reads {most}",
                    remedy="Shorten it, or use a reward model with a longer context",
                )
            rows.append(ids[-most:])
            cut.append(max(0, len(ids) - most))
        raw = score_rows(self.network, rows, self.bundle.tokenizer.pad_id).tolist() if rows else []
        return [
            Scored((value - self.mean) / self.deviation, value, len(row), lost)
            for value, row, lost in zip(raw, rows, cut, strict=True)
        ]
