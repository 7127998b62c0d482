"""Muon against a singular value decomposition and a plain, unbatched version of itself."""

from __future__ import annotations

import torch

from duihua.training.muon import Muon, orthogonalise


def test_singular_values_become_about_one_and_the_frame_stays() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 16, 40)
    found = orthogonalise(matrices)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.8
    assert float(values.max()) < 1.2
    in_frame = u.mT @ found @ vh.mT  # the polynomial is odd, so it keeps the singular vectors
    assert (in_frame - torch.diag_embed(in_frame.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4
    assert float(torch.linalg.svdvals(orthogonalise(matrices, steps=1)).min()) < 0.8  # one iteration is not enough


def test_an_update_of_stacked_and_tall_matrices_equals_each_alone() -> None:
    torch.manual_seed(0)
    shapes = {"a": (8, 20), "b": (20, 8), "c": (8, 20), "d": (8, 8)}
    weights = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    gradients = {name: torch.randn(shape) for name, shape in shapes.items()}
    expected = {}
    for name, weight in weights.items():
        gradient = gradients[name]
        velocity = 0.1 * gradient
        mixed = gradient + 0.9 * (velocity - gradient)  # Nesterov with momentum 0.9
        wide = mixed if mixed.shape[0] <= mixed.shape[1] else mixed.T
        update = orthogonalise(wide[None])[0]
        update = update if mixed.shape[0] <= mixed.shape[1] else update.T
        gain = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
        expected[name] = weight.detach() * (1 - 0.1 * 0.5) - 0.1 * gain * update
        weight.grad = gradient.clone()
    Muon(weights, momentum=0.9, weight_decay=0.5, newton_schulz_steps=5).step(0.1)
    for name, weight in weights.items():
        assert (weight.detach() - expected[name]).abs().max() < 1e-5
    assert (weights["b"].detach() - (expected["b"] + 0.01)).abs().max() > 1e-3


def test_in_bf16_the_values_come_about_as_near_to_one() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 16, 40)
    found = orthogonalise(matrices, dtype=torch.bfloat16)
    assert found.dtype is torch.float32
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.75
    assert float(values.max()) < 1.25
    assert 1e-4 < float((found - orthogonalise(matrices)).abs().max()) < 0.05
