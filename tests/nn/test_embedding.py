"""A look-up in the embedding is the product with a one-hot vector, forwards and backwards."""

from __future__ import annotations

import torch
from torch import nn

from duihua.nn.embedding import Embedding


def test_looking_up_equals_the_one_hot_product() -> None:
    table = Embedding(30, 8)
    ids = torch.tensor([[3, 29, 3], [0, 7, 7]])
    one_hot = nn.functional.one_hot(ids, 30).float()
    assert torch.equal(table(ids), one_hot @ table.weight)
    assert torch.equal(table(ids), table.weight[ids])
    assert not torch.equal(table(ids), one_hot.roll(1, dims=-1) @ table.weight)


def test_both_have_the_same_gradient_which_reaches_the_rows_of_the_text_alone() -> None:
    table, ids = Embedding(30, 8), torch.tensor([3, 29, 3, 7])
    upstream = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    (by_look_up,) = torch.autograd.grad((table(ids) * upstream).sum(), table.weight)
    product = nn.functional.one_hot(ids, 30).float() @ table.weight
    (by_product,) = torch.autograd.grad((product * upstream).sum(), table.weight)
    assert torch.allclose(by_look_up, by_product, atol=1e-6)
    assert torch.allclose(by_look_up[3], upstream[0] + upstream[2])  # a token that stands twice learns from both places
    assert set(by_look_up.abs().sum(dim=1).nonzero()[:, 0].tolist()) == {3, 7, 29}
    assert not torch.allclose(by_look_up[3], upstream[0])


def test_on_the_meta_device_no_numbers_are_drawn() -> None:
    state = torch.get_rng_state()
    with torch.device("meta"):
        assert Embedding(1000, 64).weight.is_meta
    assert torch.equal(torch.get_rng_state(), state)
