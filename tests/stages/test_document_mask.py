"""Pre-training with its documents masked: what a row teaches is what its documents would teach alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.cli.main import main
from duihua.data.loaders import documents_in
from duihua.data.source import SourceConfig
from duihua.files import sha256_file
from duihua.models.decoder import Decoder
from duihua.models.presets import preset
from duihua.nn import whole_attention
from duihua.nn.products import products_by
from duihua.stages import STAGES, pretrain
from duihua.stages.configs.pretrain import PretrainConfig, ShapeConfig
from duihua.stages.context import StageContext
from duihua.stages.execution import execute
from duihua.stages.pretrain import language_model_loss
from duihua.text.tokenizer import Tokenizer
from duihua.training.compilation import compile_blocks
from duihua.training.config import TrainerConfig
from duihua.training.precision import autocast, compute_dtype

END, VOCABULARY, LENGTH = 0, 61, 64
DOCUMENTS = [(0, 23), (23, 24), (24, 51), (51, 64)]
"""Of the row below: the first goes on from the row before, the second is empty."""


def row(opens: Sequence[int] = (23, 24, 51), seed: int = 0) -> Tensor:
    """LENGTH + 1 ids, (1, t + 1), with the end-of-text token where documents open and as the last target."""
    ids = torch.randint(1, VOCABULARY, (1, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    ids[0, [*opens, LENGTH]] = END
    return ids


def batch(ids: Tensor, masked: bool) -> dict[str, Tensor]:
    made = {"token_ids": ids[:, :-1], "targets": ids[:, 1:]}
    if masked:
        made["segments"], made["positions"] = documents_in(made["token_ids"], END)
    return made


def decoder(name: str = "qwen3", **changes: Any) -> Decoder:
    """Two layers that do something (the ordinary start makes blocks the identity), in training but without dropout."""
    shape: dict[str, Any] = {
        "vocabulary_size": VOCABULARY, "context": LENGTH, "width": 32, "layers": 2, "heads": 4, "key_value_heads": 2,
        "head_width": 8, "feed_forward_width": 48,
    }  # fmt: skip
    shape |= {f"{place}_dropout": 0.0 for place in ("embedding", "attention", "residual")} | changes
    network = Decoder(preset(name, **shape)).initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() == 2:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return network.train()


def learnt(network: Decoder, batches: Sequence[dict[str, Tensor]]) -> tuple[float, list[Tensor]]:
    """The summed loss of some batches, and its gradients."""
    network.zero_grad()
    total = torch.stack([language_model_loss(network, one).sum for one in batches]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    return float(total.detach()), [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]


def apart(one: tuple[float, list[Tensor]], other: tuple[float, list[Tensor]]) -> float:
    """The largest difference, of losses as a share and of gradients as a share of the largest."""
    largest = max(float(g.abs().max()) for g in other[1])
    gaps = [float((a - b).abs().max()) / largest for a, b in zip(one[1], other[1], strict=True)]
    return max(abs(one[0] / other[0] - 1), *gaps)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen3", {}),
        ("fast", {}),
        ("gpt2", {"key_value_heads": 4}),
        ("qwen3", {"positions": "sinusoidal"}),
        ("qwen3", {"positions": "none"}),
    ],
)
def test_a_masked_row_teaches_what_its_documents_teach_alone(
    name: str, changes: dict[str, Any], recomputed: bool
) -> None:
    network, ids = decoder(name, **changes), row()
    alone = learnt(network, [batch(ids[:, start : end + 1], masked=False) for start, end in DOCUMENTS])
    network.gradient_checkpointing = recomputed
    assert apart(learnt(network, [batch(ids, masked=True)]), alone) < 1e-5
    assert apart(learnt(network, [batch(ids, masked=False)]), alone) > 1e-2, "documents see those before them"
    late = batch(ids, masked=True)
    late["segments"] = (late["token_ids"] == END).roll(1, dims=1).cumsum(dim=1)
    assert apart(learnt(network, [late]), alone) > 1e-3, "the end of one is not the beginning of the next"


@pytest.mark.parametrize(("name", "minds"), [("qwen3", False), ("gpt2", True)])
def test_only_rotary_positions_do_not_mind_where_a_document_stands(name: str, minds: bool) -> None:
    """Why positions are counted anew in each document."""
    network, ids = decoder(name, key_value_heads=4), row()
    counted_anew, counted_on = batch(ids, masked=True), batch(ids, masked=True)
    del counted_on["positions"]
    gap = apart(learnt(network, [counted_on]), learnt(network, [counted_anew]))
    assert gap > 1e-2 if minds else gap < 1e-5


@pytest.mark.parametrize("opens", [(), (0,)])
def test_a_row_within_one_document_is_unchanged(opens: Sequence[int]) -> None:
    network, ids = decoder(), row(opens)
    assert apart(learnt(network, [batch(ids, masked=True)]), learnt(network, [batch(ids, masked=False)])) < 1e-5
    two = row((*opens, 30))
    assert apart(learnt(network, [batch(two, masked=True)]), learnt(network, [batch(two, masked=False)])) > 1e-2


def test_a_document_that_goes_on_begins_at_the_rows_start() -> None:
    network, whole = decoder(), row((0,))
    rest = whole[:, 20:]
    parts = batch(rest, masked=True)
    assert parts["positions"].tolist() == [list(range(LENGTH - 20))] and not parts["segments"].any()
    hidden = network.hidden(parts["token_ids"], positions_bt=parts["positions"], segments_bt=parts["segments"])
    torch.testing.assert_close(hidden, network.hidden(rest[:, :-1]), atol=1e-5, rtol=1e-5)
    seeing_it = network.hidden(whole[:, :-1])[:, 20:]
    assert float((hidden - seeing_it).detach().abs().max()) > 0.1, "what stands in the row before is not seen"


def test_without_the_mask_it_is_computed_as_ever_to_the_bit() -> None:
    network, ids = decoder(), row()
    plain = batch(ids, masked=False)
    weights = torch.ones(plain["targets"].shape)
    expected, _ = network.next_token_losses(network.hidden(plain["token_ids"]), plain["targets"], weights)
    assert torch.equal(language_model_loss(network, plain).sum, expected)
    assert not torch.equal(language_model_loss(network, batch(ids, masked=True)).sum, expected)
    assert PretrainConfig().mask_documents is False


def test_compiled_blocks_are_given_the_mask() -> None:
    network, ids = decoder(), row()
    expected, unmasked = (learnt(network, [batch(ids, masked=masked)]) for masked in (True, False))
    compile_blocks(network, "aot_eager")
    assert apart(learnt(network, [batch(ids, masked=True)]), expected) < 1e-5
    assert apart(unmasked, expected) > 1e-2


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch carries no oneDNN")
@pytest.mark.parametrize("library", ["torch", "onednn"])
@pytest.mark.parametrize("precision", ["fp32", "fastest", "bf16"])
def test_every_kind_of_product_is_given_the_mask(library: Any, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernel, and attention by whole matrices, in fp32 and in the formats that are rounded to 8 bits."""
    monkeypatch.setattr(whole_attention, "SMALLEST", {torch.float32: 0, torch.bfloat16: 0})
    network, ids, asked = decoder(), torch.cat([row(), row((5, 40), seed=1)]), []
    whole = whole_attention.attend
    monkeypatch.setattr(whole_attention, "attend", lambda *given: asked.append(given[3]) or whole(*given))
    with products_by("torch"):
        expected, unmasked = (learnt(network, [batch(ids, masked=masked)]) for masked in (True, False))
        asked.clear()
    dtype = compute_dtype(precision, "cpu")
    with products_by(library), autocast(dtype, "cpu"):
        found = learnt(network, [batch(ids, masked=True)])
    if library == "onednn" and dtype is None:
        assert len(asked) == 2 and all(mask is not None for mask in asked)
    near = 1e-5 if dtype is None else 0.05
    assert apart(found, expected) < near < 0.2 < apart(unmasked, expected)


TINY = PretrainConfig(
    sources=(SourceConfig(name="tiny-text"),),
    shape=ShapeConfig(width=32, layers=2, heads=2, key_value_heads=1, head_width=16, feed_forward_width=64),
    length=64, rows=4, steps=12, mask_documents=True,
    trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9, checkpoint_steps=4),
)  # fmt: skip


def trained(config: PretrainConfig, folder: Path) -> str:
    """The weights that a training ends with."""
    tokenizer = folder.parent / "tokenizer"
    if not tokenizer.exists():
        Tokenizer.train(["the cat and the dog sing and run"] * 3, 264).save(tokenizer)
    context = StageContext(folder, {"tokenizer": tokenizer}, folder.parent / "data", "cpu", 1, 1)
    execute(STAGES["pretrain"], config, context)
    return sha256_file(folder / "model.safetensors")


def test_the_stage_masks_and_goes_on_bit_for_bit(
    tmp_path: Path, killed: Callable[[Any, str, int], AbstractContextManager[None]]
) -> None:
    whole = trained(TINY, tmp_path / "whole")
    with killed(pretrain, "language_model_loss", 7):
        trained(TINY, tmp_path / "stopped")
    assert trained(TINY, tmp_path / "stopped") == whole
    lines = (tmp_path / "stopped" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))
    assert trained(dataclasses.replace(TINY, mask_documents=False), tmp_path / "unmasked") != whole


def test_the_setting_stands_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--mask-documents" in said and "Whether a token looks at its own document only" in said
