"""How far a base model is while it is trained: bits per byte of a few held-out documents, and what it goes on to write.

Why beside the loss of the steps: that one is of text which the model may be reading for the sixth time, and a number alone does
not show anybody what has been learnt. Few documents, because each look stops the training; the figure of all comes at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice

from duihua.data.pairs import stable_number
from duihua.data.records import Document
from duihua.engine.settings import SamplingSettings
from duihua.evaluation.bits_per_byte import bits_per_byte
from duihua.models.decoder import Decoder
from duihua.stages.held_out import replies
from duihua.text.tokenizer import Tokenizer
from duihua.training.metrics_file import SAMPLE_PROMPT, SAMPLE_TEXT

OPENING = 32
"""Characters of a document that the model is given to go on from."""
WRITTEN = 32
"""Tokens that it writes."""


def few_documents(documents: Iterable[Document], count: int) -> list[Document]:
    """Some of the documents, by a hash of their text: of all sources and languages, and the same ones in each run. Where none
    is asked for the first one, without reading the others."""
    if not count:
        return list(islice(documents, 1))
    return nsmallest(count, documents, key=lambda document: stable_number("heldout", document.text))


@dataclass(frozen=True)
class TextMeter:
    """Measures `network` as it now is on `documents`, in windows of `length` tokens; draws no random number."""

    network: Decoder
    tokenizer: Tokenizer
    documents: Sequence[Document]
    length: int
    device: str

    def __call__(self, step: int) -> dict[str, float | str]:
        """{"heldout_loss": nats a token, "heldout_bits_per_byte" where ids give the text back, and the sample's two parts}."""
        score = bits_per_byte(self.network, self.tokenizer, self.documents, self.length, device=self.device)["all"]
        bits = score.bits_per_byte
        found: dict[str, float | str] = {"heldout_loss": score.nats / score.tokens}
        return found | ({} if bits is None else {"heldout_bits_per_byte": bits}) | self.sample()

    def sample(self) -> dict[str, str]:
        """What the model writes, token by token the likeliest, after the opening of the first document."""
        opening = self.documents[0].text[:OPENING]
        kept, space, _ = opening.rpartition(" ")
        opening = kept if space and len(kept) >= OPENING // 2 else opening
        ids = [self.tokenizer.end_of_text_id, *self.tokenizer.encode(opening)]
        ids = ids[: max(self.length // 2, self.length - WRITTEN, 1)]
        room = min(WRITTEN, self.network.config.context - len(ids))
        if room < 1:
            return {}
        (written,) = replies(self.network, self.tokenizer, [ids], SamplingSettings(temperature=0, max_new_tokens=room))
        return {SAMPLE_PROMPT: self.tokenizer.decode(ids[1:]), SAMPLE_TEXT: written.text}
