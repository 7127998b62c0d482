"""A decoder that classifies: the trunk, embeddings for the three task tokens, dropout, one linear layer.

From: Radford et al. 2018 (GPT-1), section 3.2. P(y | x) = softmax(h W_y) with h the trunk's last vector at the extract
token (equation 3), which under causal attention has seen the whole sequence. Like the equation, W_y has no bias. For
similarity the vectors of both orders are added before W_y; for multiple choice W_y has one column and the softmax runs
over the options of an example (section 3.3).

Pooling "mean" is ours, not the paper's: W_y reads the average of the trunk's last vectors from the start to the extract
token. A small trunk has not learnt to gather a text at one place (docs/log.md has the figures).

Why the task tokens' embeddings stand outside the decoder: it stays the language model that it was, row for row, and is
saved as one. Its embedding tables are only told where to look up ids behind their last row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duihua.models.decoder import Decoder
from duihua.text.task_inputs import Task, TaskInput, TaskTokens

TASK_TOKENS = 3
Pooling = Literal["extract", "mean"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
DEVIATION = 0.02
"""Standard deviation of W_y at the start (GPT-1, section 4.1)."""


class ExtendedEmbedding(nn.Embedding):
    """An embedding whose ids behind its last row are looked up in another tensor.

    It shares the weight of `plain` and does not own `extra` (k, d), so that state and parameters of the module that it
    stands in are those that it had with `plain`.
    """

    def __init__(self, plain: nn.Embedding, extra_kd: nn.Parameter) -> None:
        super().__init__(plain.num_embeddings, plain.embedding_dim, _weight=plain.weight.detach())
        self.weight = plain.weight
        self._extra = [extra_kd]  # in a list: a parameter that is an attribute would be registered here

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) below num_embeddings + k -> (..., d)."""
        behind = ids - self.num_embeddings
        own = F.embedding(ids.clamp(max=self.num_embeddings - 1), self.weight)
        extra = F.embedding(behind.clamp(min=0), self._extra[0])
        return torch.where((behind >= 0).unsqueeze(-1), extra, own)


class Classifier(nn.Module):
    """Sequences of token ids (r, t) -> logits of classes or options (b, c). The decoder is extended in place."""

    def __init__(
        self, decoder: Decoder, task: Task, classes: int, dropout: float = 0.1, pooling: Pooling = "extract"
    ) -> None:
        """classes: how many; without meaning for multiple choice. dropout: on the vector that W_y reads, in training only.

        pooling: which vector that is: the extract token's, or the mean of all from the start to the extract token.
        """
        super().__init__()
        self.decoder, self.task, self.config, self.pooling = decoder, task, decoder.config, pooling
        self.tokens = TaskTokens.behind(decoder.config.vocabulary_size)
        self.task_embeddings = nn.ParameterDict()
        for name, table in _token_tables(decoder):
            weight = table.weight.new_zeros(TASK_TOKENS, table.embedding_dim)
            self.task_embeddings[name.replace(".", "/")] = nn.Parameter(weight)
            decoder.set_submodule(name, ExtendedEmbedding(table, self.task_embeddings[name.replace(".", "/")]))
        self.dropout = nn.Dropout(dropout)
        outputs = 1 if task == "multiple_choice" else classes
        self.score = nn.Linear(decoder.config.width, outputs, bias=False, dtype=decoder.embedding.weight.dtype)

    def initialise(self, seed: int) -> Classifier:
        """Draw W_y from N(0, 0.02) and the task tokens' embeddings as large as the others of their table. Returns self."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, table in _token_tables(self.decoder):
                weight = self.task_embeddings[name.replace(".", "/")]
                size = float(table.weight.float().square().mean().sqrt())
                weight.copy_(torch.randn(weight.shape, generator=generator) * size)
            self.score.weight.copy_(torch.randn(self.score.weight.shape, generator=generator) * DEVIATION)
        return self

    def forward(self, token_ids_rt: Tensor, rows_bk: Tensor, *, attention_mask_rt: Tensor | None = None) -> Tensor:
        """Logits (b, c) in fp32, -inf at options that an example does not have.

        rows_bk: which sequences belong to each example, as `collate` gives it. attention_mask_rt (1 real, 0 pad) is
        needed where pads stand on the left; pads on the right cannot be seen from the extract token.
        """
        hidden_rtd = self.hidden(token_ids_rt, attention_mask_rt)
        return self.class_logits(hidden_rtd, token_ids_rt, rows_bk)

    def hidden(self, token_ids_rt: Tensor, attention_mask_rt: Tensor | None = None) -> Tensor:
        """The trunk's last vectors (r, t, d)."""
        return self.decoder.hidden(token_ids_rt, attention_mask_bt=attention_mask_rt)

    def class_logits(self, hidden_rtd: Tensor, token_ids_rt: Tensor, rows_bk: Tensor) -> Tensor:
        """Equation 3 before its softmax, from each sequence's extract token or mean, (b, c) in fp32."""
        vectors_rd = self._pooled(hidden_rtd, token_ids_rt)
        if self.task == "multiple_choice":
            scores_r: Tensor = self.score(self.dropout(vectors_rd))[:, 0].float()
            return scores_r[rows_bk.clamp(min=0)].masked_fill(rows_bk < 0, -torch.inf)
        logits_bc: Tensor = self.score(self.dropout(vectors_rd[rows_bk].sum(dim=1)))
        return logits_bc.float()

    def _pooled(self, hidden_rtd: Tensor, token_ids_rt: Tensor) -> Tensor:
        """One vector a sequence, (r, d). Pads stand before the start token or behind the extract token."""
        extract_rt = token_ids_rt == self.tokens.extract
        if self.pooling == "extract":
            places_r = extract_rt.int().argmax(dim=1)
            return hidden_rtd[torch.arange(len(places_r), device=places_r.device), places_r]
        begun_rt = (token_ids_rt == self.tokens.start).cumsum(dim=1) > 0
        counted_rt = (begun_rt & ((extract_rt.cumsum(dim=1) == 0) | extract_rt)).to(hidden_rtd.dtype)
        return (counted_rt.unsqueeze(-1) * hidden_rtd).sum(dim=1) / counted_rt.sum(dim=1, keepdim=True)

    def text_mask(self, token_ids_rt: Tensor) -> Tensor:
        """True on the tokens of the texts: between start and extract, and no task token, (r, t)."""
        begun = (token_ids_rt == self.tokens.start).cumsum(dim=1) > 0
        ended = (token_ids_rt == self.tokens.extract).cumsum(dim=1) > 0
        return begun & ~ended & (token_ids_rt < self.config.vocabulary_size)


def collate(inputs: Sequence[TaskInput], pad_id: int) -> dict[str, Tensor]:
    """{"token_ids": (r, t), padded on the right; "rows": (b, k), the sequences of each example, -1 where it has fewer}."""
    rows = [row for example in inputs for row in example.rows]
    width, most = max(map(len, rows)), max(len(example.rows) for example in inputs)
    places, first = [], 0
    for example in inputs:
        count = len(example.rows)
        places.append([*range(first, first + count), *[-1] * (most - count)])
        first += count
    token_ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    return {"token_ids": token_ids, "rows": torch.tensor(places)}


@torch.no_grad()
def class_probabilities(
    classifier: Classifier,
    inputs: Sequence[TaskInput],
    pad_id: int,
    *,
    micro_batch: int = 64,
    dtype: torch.dtype | None = None,
) -> list[list[float]]:
    """P(y | x) of each example, as many numbers as it has classes or options; those of like length are read together.

    Dropout is off meanwhile. micro_batch: most sequences at a time, so that many options cost time and not memory.
    dtype: of the matrix products, None for the weights' own.
    """
    device = classifier.score.weight.device
    found: list[list[float]] = [[] for _ in inputs]
    autocast = torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()
    was_training = classifier.training
    classifier.eval()
    try:
        for places in _together(inputs, micro_batch):
            batch = collate([inputs[place] for place in places], pad_id)
            with autocast:
                logits_bc = classifier(batch["token_ids"].to(device), batch["rows"].to(device))
            chances = torch.softmax(logits_bc.double(), dim=-1).tolist()
            for place, chance in zip(places, chances, strict=True):
                count = len(inputs[place].rows) if classifier.task == "multiple_choice" else len(chance)
                found[place] = chance[:count]
    finally:
        classifier.train(was_training)
    return found


def _together(inputs: Sequence[TaskInput], most: int) -> Iterator[list[int]]:
    """Places of the inputs, shortest first, in groups of at most `most` sequences; an example is never split."""
    group: list[int] = []
    sequences = 0
    for place in sorted(range(len(inputs)), key=lambda place: (inputs[place].length, place)):
        own = len(inputs[place].rows)
        if group and sequences + own > most:
            yield group
            group, sequences = [], 0
        group.append(place)
        sequences += own
    if group:
        yield group


def _token_tables(decoder: Decoder) -> list[tuple[str, nn.Embedding]]:
    """The decoder's tables that are indexed by token ids, with their names: not those of positions."""
    rows = decoder.config.vocabulary_size
    return [
        (name, module)
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings == rows and "position" not in name
    ]
