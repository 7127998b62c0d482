"""Products by oneDNN against PyTorch's own, values and gradients, and the rule that chooses between them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from duihua.errors import ConfigError
from duihua.nn.losses import cross_entropy_sum
from duihua.nn.products import (
    SMALLEST,
    Linear,
    add_weight_gradient,
    batched_product,
    choose,
    evened,
    library,
    linear,
    product,
    products_by,
    weight_gradient,
)
from duihua.training.muon import orthogonalise

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch carries no oneDNN")
CLOSE = {"atol": 2e-4, "rtol": 0.0}
"""Sums of some hundred products of numbers about 1, in any order."""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def results(forward: object, x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """What a linear layer gives, and its gradients for a loss that weighs every number differently."""
    inputs = [one.clone().requires_grad_() for one in (x, weight, bias) if one is not None]
    y = forward(*inputs)  # type: ignore[operator]
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), inputs)]


@needs_onednn
@pytest.mark.parametrize("shape", [(8, 40, 96, 192), (3, 100, 192, 96), (1, 300, 128, 128)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_linear_layer_equals_torchs_with_all_gradients(shape: tuple[int, ...], with_bias: bool) -> None:
    batch, time, inputs, outputs = shape
    assert batch * time * inputs * outputs >= SMALLEST
    x, weight, bias = numbers(batch, time, inputs), numbers(outputs, inputs, seed=1), numbers(outputs, seed=2)
    given = (x, weight, bias if with_bias else None)
    expected = results(nn.functional.linear, *given)
    with products_by("onednn"):
        found = results(linear, *given)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)
    rounded = results(nn.functional.linear, x, weight.bfloat16().float(), given[2])
    assert all((mine - theirs).abs().max() > 50 * CLOSE["atol"] for mine, theirs in zip(rounded, expected, strict=True))


@needs_onednn
def test_it_is_onednn_that_multiplies_and_torch_below_the_threshold_and_in_other_formats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[tuple[int, ...]] = []
    plain = torch.ops.mkldnn._linear_pointwise

    def noted(x: Tensor, *rest: object) -> Tensor:
        called.append(tuple(x.shape))
        return plain(x, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr("duihua.nn.products._kernel", lambda: noted)
    large, small = Linear(256, 256), Linear(8, 8)
    with products_by("onednn"):
        large(numbers(64, 256)).sum().backward()  # the gradient of a sum is one number spread out
        assert called == [(64, 256), (256, 64)]  # nobody asked for the gradient of the input
        small(numbers(2, 8))
        large.double()(numbers(64, 256).double())
        with torch.autocast("cpu", torch.bfloat16):
            assert large.float()(numbers(64, 256)).dtype is torch.bfloat16
    with products_by("torch"):
        large(numbers(64, 256))
    assert len(called) == 2
    assert large.weight.grad is not None
    expected = torch.ones(64, 256).double().t() @ numbers(64, 256).double()
    torch.testing.assert_close(large.weight.grad.double(), expected, **CLOSE)


@needs_onednn
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(500, 64, 128), (500, 128, 64)])
def test_products_without_gradients_equal_plain_ones(rows: int, inputs: int, outputs: int) -> None:
    x, grad, weight = numbers(rows, inputs), numbers(rows, outputs, seed=1), numbers(outputs, inputs, seed=2)
    with products_by("onednn"):
        torch.testing.assert_close(product(x, weight.t()), x @ weight.t(), **CLOSE)
        torch.testing.assert_close(product(grad, weight), grad @ weight, **CLOSE)
        torch.testing.assert_close(weight_gradient(grad, x), grad.t() @ x, **CLOSE)
        total = numbers(outputs, inputs, seed=3)
        for _ in range(2):  # the second time the total is a transposed view
            expected = total + grad.t() @ x
            total = add_weight_gradient(total.clone(), grad, x)
            torch.testing.assert_close(total, expected, **CLOSE)
        left, right = numbers(3, 200, 120), numbers(3, 180, 120, seed=1)
        torch.testing.assert_close(batched_product(left, right), left @ right.mT, **CLOSE)
        plus = numbers(3, 200, 180, seed=2)
        found = batched_product(left, right, plus, 0.5, -2.0)
        torch.testing.assert_close(found, 0.5 * left @ right.mT - 2 * plus, **CLOSE)
        assert not torch.allclose(batched_product(left, right.flip(0)), left @ right.mT, **CLOSE)


@needs_onednn
def test_the_same_product_has_the_same_bits() -> None:
    x, weight = numbers(333, 96), numbers(200, 96, seed=1)
    with products_by("onednn"):
        first = results(linear, x, weight, None)
        assert all(
            torch.equal(a, b) for a, b in zip(first, results(linear, x.clone(), weight.clone(), None), strict=True)
        )


@needs_onednn
def test_the_chunked_loss_and_muon_equal_themselves_by_torch() -> None:
    hidden, head, targets = numbers(600, 64), numbers(1000, 64, seed=1) * 0.1, torch.arange(600)
    found = {}
    for name in ("torch", "onednn"):
        with products_by(name):  # type: ignore[arg-type]
            given = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
            total, _ = cross_entropy_sum(*given, targets, torch.ones(600), chunk_rows=130)
            found[name] = [
                total.detach() / 600,
                *torch.autograd.grad(total, given),
                orthogonalise(numbers(2, 150, 190)),
            ]
    for mine, theirs in zip(found["onednn"], found["torch"], strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)
    plain = nn.functional.cross_entropy(hidden @ head.t(), targets)
    torch.testing.assert_close(found["onednn"][0], plain, atol=1e-5, rtol=0.0)


def test_onednn_multiplies_where_the_processor_has_avx512_and_is_not_intels() -> None:
    there = "onednn" if torch.backends.mkldnn.is_available() else "torch"
    assert choose({}, "AuthenticAMD", "AVX512") == there
    assert choose({}, "GenuineIntel", "AVX512") == "torch"
    assert choose({}, "AuthenticAMD", "AVX2") == "torch"
    assert choose({}, "", "AVX512") == "torch"  # nobody knows whose it is
    assert choose({"DUIHUA_PRODUCTS": "torch"}, "AuthenticAMD", "AVX512") == "torch"
    assert choose({"DUIHUA_PRODUCTS": "auto"}, "GenuineIntel", "AVX2") == "torch"
    with pytest.raises(ConfigError, match=r"DUIHUA_PRODUCTS.*'mkl' multiplies no matrices.*auto, torch or onednn"):
        choose({"DUIHUA_PRODUCTS": "mkl"})
    assert library() in ("torch", "onednn")


def test_a_onednn_that_is_not_there_is_refused_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose({}, "AuthenticAMD", "AVX512") == "torch"
    with pytest.raises(ConfigError, match="carries no oneDNN"):
        choose({"DUIHUA_PRODUCTS": "onednn"})


@needs_onednn
def test_few_numbers_of_rows_are_multiplied() -> None:
    with products_by("onednn"):
        sizes = {len(evened(torch.ones(rows, 2))) for rows in range(500, 2000)}
        assert sizes == {512, *range(576, 1024, 64), *range(1024, 2049, 128)}
        filled = evened(torch.ones(1000, 2))
        assert len(filled) == 1024 and float(filled.sum()) == 2000
        assert [len(evened(torch.ones(rows))) for rows in (1, 2, 3, 5, 9, 16, 17)] == [1, 2, 4, 8, 16, 16, 32]
        even = torch.ones(1024, 2)
        assert evened(even) is even
    with products_by("torch"):
        odd = torch.ones(1000, 2)
        assert evened(odd) is odd
        with torch.autocast("cpu", torch.bfloat16):  # torch's own bf16 products are oneDNN's too
            assert len(evened(odd)) == 1024


@needs_onednn
def test_rows_that_need_no_filling_up_are_not_cut_out_again() -> None:
    with products_by("onednn"):  # a cut's gradient is a copy of everything into zeros
        weight = numbers(256, 128).requires_grad_()
        assert "Slice" not in str(linear(numbers(4, 32, 128), weight).grad_fn.next_functions)
        assert "Slice" in str(linear(numbers(3, 33, 128), weight).grad_fn.next_functions)
