"""Pairs as trees: the prompt once, and both replies as branches of it, several pairs side by side in a row.

Why: the two sides of a pair begin with the same prompt, and what a token sees does not depend on what stands beside it.
A branch looks at its prompt and at itself and counts its positions on from the prompt's end, so that its log-probability
is the one it has in a row of its own (a test holds that), and the prompt is read and differentiated once instead of
twice. Of a pair with a prompt of 60 tokens and replies of 20 that spares 60 of 160 tokens. Several trees are packed into a
row as conversations are in fine-tuning (data/packing.py), so that pads are few although pairs differ in length.

The attention mask this needs has a row for each token, which costs attention t^2 in the length of a row: rows are
therefore kept short (`row_tokens`), unlike those of fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from duihua.data.packing import best_fit
from duihua.engine.randomness import sample_seed
from duihua.models.decoder import Decoder
from duihua.nn.attention import columns_where
from duihua.stages.encoded_pairs import Pair
from duihua.training.ranks import Ranks, current

PROMPT, CHOSEN, REJECTED = 0, 1, 2


@dataclass(frozen=True)
class Tree:
    """A pair as ids: the prompt, and both replies with their stop tokens."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        """Places that it takes in a row; the last token of a reply predicts nothing and is left off."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected) - 2


def tree_of(pair: Pair) -> Tree:
    """The pair with its common prompt taken apart."""
    prompt = pair.chosen[: len(pair.chosen) - pair.chosen_reply]
    assert prompt == pair.rejected[: len(pair.rejected) - pair.rejected_reply], "both sides have the same prompt"
    return Tree(prompt, pair.chosen[len(prompt) :], pair.rejected[len(prompt) :])


def rows_of(trees: Sequence[Tree], row_tokens: int) -> list[list[int]]:
    """Indices of the trees, a list for each row of at most `row_tokens` places (or of the longest tree)."""
    lengths = [tree.length for tree in trees]
    return best_fit(lengths, max(row_tokens, *lengths))


def tree_batch(trees: Sequence[Tree], rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """Some rows of trees as tensors.

    "token_ids", "positions", "trees" (1, 2, ... in a row, 0 for pads) and "branches" (b, t) say what is read. For each of
    the n reply tokens "rows" and "columns" say where the state before it stands, "targets" which token it is and
    "sides" whose it is: pair i's chosen reply is side i, its rejected one side p + i. "pairs" (p,) are the indices of the
    trees in that order, "row_pairs" (b,) how many each row has, "lengths" (2p,) the tokens of each side.
    """
    order = [index for row in rows for index in row]
    width = max(sum(trees[index].length for index in row) for row in rows)
    shape = (len(rows), width)
    token_ids = torch.full(shape, pad_id)
    positions, numbers, branches = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    places: list[tuple[int, int, int, int]] = []  # row, column, target, side
    pair = 0
    for r, row in enumerate(rows):
        start = 0
        for number, index in enumerate(row, start=1):
            tree = trees[index]
            prompt = len(tree.prompt)
            ids = tree.prompt + tree.chosen[:-1] + tree.rejected[:-1]
            here = slice(start, start + len(ids))
            token_ids[r, here] = torch.tensor(ids)
            numbers[r, here] = number
            positions[r, start : start + prompt] = torch.arange(prompt)
            first = start + prompt
            for branch, reply in ((CHOSEN, tree.chosen), (REJECTED, tree.rejected)):
                read = len(reply) - 1
                positions[r, first : first + read] = prompt + torch.arange(read)
                branches[r, first : first + read] = branch
                columns = [start + prompt - 1, *range(first, first + read)]
                side = pair if branch == CHOSEN else pair + len(order)
                places += [(r, column, token, side) for column, token in zip(columns, reply, strict=True)]
                first += read
            start += len(ids)
            pair += 1
    found = torch.tensor(places)
    sizes = [len(trees[i].chosen) for i in order] + [len(trees[i].rejected) for i in order]
    return {
        "token_ids": token_ids,
        "positions": positions,
        "trees": numbers,
        "branches": branches,
        "rows": found[:, 0],
        "columns": found[:, 1],
        "targets": found[:, 2],
        "sides": found[:, 3],
        "pairs": torch.tensor(order),
        "row_pairs": torch.tensor([len(row) for row in rows]),
        "lengths": torch.tensor(sizes),
    }


def visible(trees_bt: Tensor, branches_bt: Tensor) -> Tensor:
    """(b, t, s): whether the token at t may look at the one at s, what comes later aside: its own tree's prompt or branch."""
    same_bts = trees_bt[:, :, None] == trees_bt[:, None, :]
    own_bts = branches_bt[:, :, None] == branches_bt[:, None, :]
    return same_bts & (own_bts | (branches_bt == PROMPT)[:, None, :])


def side_log_probabilities(network: Decoder, batch: dict[str, Tensor]) -> Tensor:
    """log pi(reply | prompt) of each side, the sum over its tokens: (2p,) in fp32, the chosen sides first."""
    rows_n, columns_n = batch["rows"], batch["columns"]
    wanted_bt = torch.zeros_like(batch["token_ids"], dtype=torch.bool)
    wanted_bt[rows_n, columns_n] = True
    hidden_brd = network.hidden(
        batch["token_ids"],
        attention_mask_bt=visible(batch["trees"], batch["branches"]),
        positions_bt=batch["positions"],
        columns_br=columns_where(wanted_bt),
    )
    places_bt = wanted_bt.cumsum(dim=1) - 1  # where among the wanted ones a column stands
    states_nd = hidden_brd[rows_n, places_bt[rows_n, columns_n]]
    logprobs_n = network.log_probabilities(states_nd, batch["targets"])
    sums = torch.zeros(len(batch["lengths"]), dtype=logprobs_n.dtype, device=logprobs_n.device)
    return sums.index_add(0, batch["sides"], logprobs_n)


@torch.no_grad()
def all_log_probabilities(
    network: Decoder,
    trees: Sequence[Tree],
    row_tokens: int,
    micro_batch_tokens: int,
    pad_id: int,
    ranks: Ranks | None = None,
) -> Tensor:
    """log pi of both sides of every tree, (n, 2) in fp32 on the CPU: chosen, rejected. Several ranks read a part each; what
    one of them asks for alone it must ask with `ranks` of one."""
    found = torch.zeros(len(trees), 2)
    if not trees:
        return found
    device, ranks = network.embedding.weight.device, ranks or current()
    for whole in micro_batches(trees, rows_of(trees, row_tokens), micro_batch_tokens):
        rows = whole[ranks.number :: ranks.count]
        if not rows:
            continue
        batch = tree_batch(trees, rows, pad_id)
        sums = side_log_probabilities(network, {name: tensor.to(device) for name, tensor in batch.items()})
        found[batch["pairs"]] = torch.stack(sums.float().cpu().chunk(2), dim=1)
    return ranks.add(found)  # each pair stands on one rank and is zero on the others


def micro_batches(
    trees: Sequence[Tree], rows: Sequence[Sequence[int]], micro_batch_tokens: int
) -> list[list[Sequence[int]]]:
    """The rows in parts of at most `micro_batch_tokens` places, rows of like width together; at least one row in each."""
    widths = [sum(trees[index].length for index in row) for row in rows]
    parts: list[list[Sequence[int]]] = []
    most = 0
    for place in sorted(range(len(rows)), key=lambda r: (-widths[r], r)):
        if parts and most * (len(parts[-1]) + 1) <= micro_batch_tokens:
            parts[-1].append(rows[place])
        else:
            parts.append([rows[place]])
            most = widths[place]
    return parts


class TreeBatches:
    """A batch source of trees with the reference's log-probabilities; every epoch comes in a new order."""

    def __init__(
        self,
        trees: Sequence[Tree],
        reference_n2: Tensor,
        *,
        batch: int,
        row_tokens: int,
        micro_batch_tokens: int,
        pad_id: int,
        seed: int,
    ) -> None:
        self.trees, self.reference, self.batch, self.pad_id, self.seed = trees, reference_n2, batch, pad_id, seed
        self.row_tokens, self.micro_batch_tokens = row_tokens, micro_batch_tokens
        self.step = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps that show every pair once; the last one may be smaller."""
        return -(-len(self.trees) // self.batch)

    def next(self) -> list[dict[str, Tensor]]:
        """The micro-batches of one update: `tree_batch`, and "reference" (2p,) in the order of the sides."""
        return self.share(0, 1)

    def share(self, rank: int, ranks: int) -> list[dict[str, Tensor]]:
        """The rows of one of several ranks, of each micro-batch those numbered rank, rank + ranks, ...; {} for none."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(sample_seed(self.seed, epoch, 0, 0))
        order = torch.randperm(len(self.trees), generator=generator).tolist()
        chosen = order[place * self.batch : (place + 1) * self.batch]
        self.step += 1
        trees = [self.trees[index] for index in chosen]
        parts = micro_batches(trees, rows_of(trees, self.row_tokens), self.micro_batch_tokens)
        mine = [[[chosen[index] for index in row] for row in part[rank::ranks]] for part in parts]
        return [self._batch(rows) if rows else {} for rows in mine]

    def halves(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A micro-batch as two, where the memory does not hold it: half of the rows each, or half of the one row's pairs."""
        pairs = batch["pairs"].tolist()
        rows = [[pairs.pop(0) for _ in range(size)] for size in batch["row_pairs"].tolist()]
        if len(rows) == 1:
            rows = [[pair] for pair in rows[0]]
        middle = -(-len(rows) // 2)
        return [self._batch(part) for part in (rows[:middle], rows[middle:]) if part]

    def _batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        batch = tree_batch(self.trees, rows, self.pad_id)
        batch["reference"] = self.reference[batch["pairs"]].T.flatten()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The number of steps handed out; the order is a hash of seed and epoch."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
