"""Weights laid out ahead of time: the same products, never those of a weight that has changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from duihua.engine.engine import Engine
from duihua.engine.service import EngineService
from duihua.engine.settings import SamplingSettings
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.nn.packed_weights import SMALLEST, PackedWeight, packed_weights
from duihua.nn.products import Linear, products_by

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch carries no oneDNN")
CLOSE = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(autouse=True)
def by_onednn() -> Iterator[None]:
    with products_by("onednn"):
        yield


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each product that took a weight laid out."""
    found: list[int] = []
    plain = PackedWeight.product
    monkeypatch.setattr(PackedWeight, "product", lambda self, *rest: found.append(1) or plain(self, *rest))
    return found


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(bias: bool = False) -> Linear:
    made = Linear(256, 512, bias=bias)
    with torch.no_grad():
        made.weight.copy_(numbers(512, 256, seed=1) / 16)
    return made


@pytest.mark.parametrize("rows", [4, 7, 16, 33])
@pytest.mark.parametrize("bias", [False, True])
def test_it_gives_what_torch_gives(rows: int, bias: bool, used: list[int]) -> None:
    made, x = layer(bias), numbers(rows, 1, 256)
    expected = nn.functional.linear(x, made.weight, made.bias)
    with packed_weights(made), torch.no_grad():
        torch.testing.assert_close(made(x), expected, **CLOSE)
        with torch.inference_mode():
            torch.testing.assert_close(made(x), expected, **CLOSE)
        assert len(used) == 2
        assert (made(x + 0.01) - expected).abs().max() > 100 * CLOSE["atol"]


@pytest.mark.parametrize("change", ["written over", "replaced"])
def test_a_weight_that_has_changed_is_multiplied_as_it_is_now(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(), numbers(8, 256)
    with packed_weights(made), torch.no_grad():
        if change == "written over":
            made.weight.mul_(2.0)
        else:
            made.weight.data = numbers(512, 256, seed=2)
        torch.testing.assert_close(made(x), nn.functional.linear(x, made.weight), **CLOSE)
    with packed_weights(made), torch.no_grad():
        torch.testing.assert_close(made(x), nn.functional.linear(x, made.weight), **CLOSE)
        # control: who does not look whether it is still that weight multiplies by the old one
        monkeypatch.setattr(PackedWeight, "is_of", lambda self, weight: True)
        made.weight.add_(1.0)
        assert (made(x) - nn.functional.linear(x, made.weight)).abs().max() > 1.0


def test_an_update_that_leaves_no_trace_is_met_by_laying_out_anew() -> None:
    made, x = layer(), numbers(8, 256)
    with packed_weights(made):
        pass
    assert made.packed is None
    made(x).sum().backward()
    before = made.weight._version
    torch.optim.AdamW(made.parameters(), lr=0.1, fused=True).step()
    assert made.weight._version == before, "torch's fused optimizers tell now: the weights might be kept laid out"
    with packed_weights(made), torch.no_grad():
        torch.testing.assert_close(made(x), nn.functional.linear(x, made.weight), **CLOSE)


def test_who_leaves_last_takes_them_back() -> None:
    made = layer()
    with packed_weights(made):
        first = made.packed
        with packed_weights(made):
            assert made.packed is first is not None
        assert made.packed is first
    assert made.packed is None


def test_it_serves_only_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(), numbers(8, 256)
    with packed_weights(made):
        assert made.packed is not None
        serves = made.packed.serves
        assert not serves(x, made.weight)  # somebody may want gradients
        with torch.no_grad():
            assert serves(x, made.weight)
            assert not serves(x[: SMALLEST // (256 * 512)], made.weight)
            assert not serves(x.double(), made.weight)
            with torch.autocast("cpu", torch.bfloat16):
                assert not serves(x, made.weight)
            with products_by("torch"):
                assert not serves(x, made.weight)
    with products_by("torch"), packed_weights(made):
        assert made.packed is None
    monkeypatch.setattr("duihua.nn.packed_weights.MOST", 1000)
    with packed_weights(made):
        assert made.packed is None


def test_a_copy_is_a_layer_without_it() -> None:
    made = layer()
    with packed_weights(made):
        copied = copy.deepcopy(made)
    assert copied.packed is None
    assert torch.equal(copied.weight, made.weight) and list(copied.state_dict()) == ["weight"]


def test_engines_lay_out_the_weights_they_have_now_and_write_the_same(used: list[int]) -> None:
    sizes = {"width": 128, "layers": 2, "heads": 2, "key_value_heads": 2, "head_width": 64, "feed_forward_width": 512}
    network = Decoder(DecoderConfig(vocabulary_size=1024, context=64, **sizes)).initialise(0).eval()
    settings = SamplingSettings(temperature=0.0, max_new_tokens=12, stop_ids=())
    prompts = [[n, n + 1, n + 2] for n in range(3, 11)]

    def written() -> list[list[int]]:
        return [list(one.ids) for one in Engine(network, None, 8).generate(prompts, settings)]

    with products_by("torch"):
        expected = written()
    assert not used
    assert written() == expected and used
    with torch.no_grad():
        for weight in network.parameters():
            weight.neg_()
    with products_by("torch"):
        changed = written()
    assert changed != expected and written() == changed
    service = EngineService(Engine(network, None, 2))
    with service:
        assert len(list(service.submit(prompts[0], settings))) >= 12
        assert network.head.packed is not None
    assert network.head.packed is None
