"""One face for every model that gives text a probability, so that perplexity, tasks and comparisons ask all alike.

What differs between a decoder, a recurrent network and counted n-grams is how far back they look and how they are run; what is
asked of them is the same: of these ids, how unlikely was each, given those before it? Whatever has
`log_probabilities(ids) -> natural logs` and a vocabulary fits in through `Counted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from duihua.errors import BundleError
from duihua.evaluation.next_token import Predictions, predict
from duihua.models.bundle import Bundle, load_bundle
from duihua.models.counts.ngram_bundle import is_ngram, load_ngram
from duihua.models.recurrent import RecurrentLM, States
from duihua.models.recurrent_bundle import is_recurrent_bundle, load_recurrent
from duihua.text.tokenizer import Tokenizer
from duihua.text.vocabulary import Vocabulary

READ_AT_ONCE = 256
"""Tokens that a recurrent network reads before its logits are looked at: bounds memory, changes no number."""


class LanguageModel(Protocol):
    """What measurements need. context: most ids that are read to predict one, None where there is no bound."""

    @property
    def name(self) -> str: ...
    @property
    def context(self) -> int | None: ...
    @property
    def start_id(self) -> int:
        """The id that stands before the first one of a document."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no control ids among them."""
        ...

    def unknown(self, ids: Sequence[int]) -> int:
        """How many of the ids stand for what the vocabulary lacks."""
        ...

    def whole(self, text: str, ids: Sequence[int]) -> bool:
        """Whether `ids`, which `encode` gave, say all of the text. Words do not say what stood between them, the unknown id not
        what it stands for, and a tokenizer that normalises gives the ids of another text. Bits per byte need it: of what the
        ids leave out nothing was predicted."""
        ...

    @property
    def carries(self) -> bool:
        """Whether what stood before a separator still tells something: false of n-grams, which are counted within texts."""
        ...

    def predict(self, sequences: Sequence[Sequence[int]], last: Sequence[int] | None = None) -> list[Predictions]:
        """See `next_token.predict`. Where a model cannot say which id is likeliest, `right` is empty."""
        ...


class DecoderModel:
    """A decoder bundle, ours or a Hugging Face directory that we read."""

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle, self.device = bundle, device
        self.network = bundle.policy
        self.name = str(bundle.directory)
        self.context: int | None = bundle.config.context
        self.carries = True

    @property
    def start_id(self) -> int:
        """The document separator, which stood before every document in training."""
        return int(self.bundle.tokenizer.end_of_text_id)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Byte-level ids: every text has them."""
        return self.bundle.tokenizer.encode_batch(texts)

    def unknown(self, ids: Sequence[int]) -> int:
        """Bytes know no unknown words."""
        return 0

    def whole(self, text: str, ids: Sequence[int]) -> bool:
        """By the bytes of this text: a normaliser leaves most texts as they are."""
        return self.bundle.tokenizer.gives_back(text, ids)

    def predict(self, sequences: Sequence[Sequence[int]], last: Sequence[int] | None = None) -> list[Predictions]:
        """In batches of about the same length."""
        return predict(self.network, sequences, self.device, last)


class LogProbabilities(Protocol):
    """A model that says how likely the ids of one sequence are: natural logs of ids[1:], each given those before it."""

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float64] | torch.Tensor: ...


class _WithVocabulary:
    """What models share that have a vocabulary and no bound to their context."""

    context: int | None = None

    def __init__(self, vocabulary: Vocabulary, name: str) -> None:
        self.vocabulary, self.name = vocabulary, name
        self.start_id = vocabulary.end_of_text_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The vocabulary's ids."""
        return self.vocabulary.encode_batch(texts)

    def unknown(self, ids: Sequence[int]) -> int:
        """Ids that stand for what the vocabulary lacks."""
        absent = self.vocabulary.unknown_id
        return 0 if absent is None else sum(id == absent for id in ids)

    def whole(self, text: str, ids: Sequence[int]) -> bool:
        """By the bytes where the vocabulary is a tokenizer; characters unless one is unknown; words never."""
        if isinstance(self.vocabulary, Tokenizer):
            return self.vocabulary.gives_back(text, ids)
        return self.vocabulary.lossless and not self.unknown(ids)


class Counted(_WithVocabulary):
    """Any model with `log_probabilities`, such as counted n-grams."""

    carries = False

    def __init__(self, model: LogProbabilities, vocabulary: Vocabulary, name: str) -> None:
        super().__init__(vocabulary, name)
        self.model = model

    def predict(self, sequences: Sequence[Sequence[int]], last: Sequence[int] | None = None) -> list[Predictions]:
        """One sequence at a time. Which id was likeliest is not said."""
        results = []
        for place, ids in enumerate(sequences):
            nats = -np.asarray(self.model.log_probabilities(ids), dtype=np.float64)
            if len(nats) != len(ids) - 1:
                raise ValueError(f"{len(nats)} log-probabilities for {len(ids)} ids: those of ids[1:] are needed")
            results.append(Predictions(nats if last is None else nats[-last[place] :], np.zeros(0, dtype=np.bool_)))
        return results


class RecurrentModel(_WithVocabulary):
    """A recurrent network: its state is carried through the whole text."""

    carries = True

    def __init__(self, network: RecurrentLM, vocabulary: Vocabulary, name: str) -> None:
        super().__init__(vocabulary, name)
        self.network = network

    @torch.inference_mode()
    def predict(self, sequences: Sequence[Sequence[int]], last: Sequence[int] | None = None) -> list[Predictions]:
        """One sequence at a time."""
        was_training = self.network.training
        self.network.eval()
        try:
            return [
                self._read(ids, len(ids) - 1 if last is None else last[place]) for place, ids in enumerate(sequences)
            ]
        finally:
            self.network.train(was_training)

    def _read(self, ids: Sequence[int], last: int) -> Predictions:
        device = self.network.embedding.weight.device
        ids_1t = torch.as_tensor(np.asarray(ids, dtype=np.int64), device=device)[None]
        nats, right = [], []
        states: States | None = None
        for begin in range(0, ids_1t.shape[1] - 1, READ_AT_ONCE):
            window = ids_1t[:, begin : begin + READ_AT_ONCE + 1]
            hidden, states = self.network(window[:, :-1], states)
            logits, targets = self.network.logits(hidden)[0].float(), window[0, 1:]
            nats.append((logits.logsumexp(-1) - logits.gather(-1, targets[:, None])[:, 0]).double().cpu().numpy())
            right.append((logits.argmax(-1) == targets).cpu().numpy())
        return Predictions(np.concatenate(nats)[-last:], np.concatenate(right)[-last:])


def open_language_model(directory: str | Path, device: str = "cpu") -> LanguageModel:
    """The model in a directory: decoder, recurrent network or n-grams. Raises BundleError where there is none of them."""
    if is_ngram(directory):
        counted = load_ngram(directory)
        return Counted(counted.model, counted.vocabulary, str(directory))
    if is_recurrent_bundle(directory):
        recurrent = load_recurrent(directory, device)
        return RecurrentModel(recurrent.network, recurrent.vocabulary, str(directory))
    return DecoderModel(load_bundle(directory, device), device)


def require_greedy(made: Predictions, model: LanguageModel, what: str) -> None:
    """Raise BundleError where the model does not say which token is likeliest."""
    if len(made.right) != len(made.nats):
        raise BundleError(
            f"this model gives probabilities and no likeliest token, which {what} needs",
            where=model.name,
            remedy="Use a decoder or a recurrent network",
        )
