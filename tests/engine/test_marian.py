"""Against MarianMTModel of transformers, with random weights: the network's logits, and the search's hypotheses and scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duihua.engine.beam_search import beam_search
from duihua.engine.beam_settings import BeamSettings, Stopping
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.models.translator import pad_rows

transformers = pytest.importorskip("transformers")

PAD, END, VOCABULARY, LIMIT = 59, 0, 60, 12
SOURCES = [
    [5, 6, 7, 8, 0],
    [9, 10, 0],
    [11, 12, 13, 14, 15, 16, 0],
    [20, 0],
    [31, 32, 33, 34, 0],
    [8, 9, 40, 41, 42, 0],
]
SHAPE = TransformerConfig(
    VOCABULARY,
    width=32,
    encoder_layers=2,
    decoder_layers=2,
    heads=4,
    feed_forward_width=48,
    most_tokens=64,
    positions="sinusoidal_halves",
    activation="silu",
    attention_bias=True,
    output_bias=True,
    start_id=PAD,
    end_id=END,
    pad_id=PAD,
)


def marian(logits: float = 6.0, end_bias: float = 0.0, seed: int = 1) -> Any:
    """A model whose logits have about the deviation `logits`; those of the end are raised by end_bias."""
    torch.manual_seed(0)
    config = transformers.MarianConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        activation_function="swish",
        scale_embedding=True,
        dropout=0.0,
        max_position_embeddings=64,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=END,
        forced_eos_token_id=None,
    )
    model = transformers.MarianMTModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_positions" not in name:
                centre = float(weight.ndim == 1 and name.endswith("weight"))
                scale = 0.1 if weight.ndim == 1 else 0.4
                weight.copy_(centre + torch.randn(weight.shape, generator=generator) * scale)
        for parameter in model.model.decoder.layers[-1].final_layer_norm.parameters():
            parameter.mul_(logits / (0.4 * 32**0.5))
        model.final_logits_bias.copy_(torch.randn(1, VOCABULARY, generator=generator))
        model.final_logits_bias[0, END] += end_bias
    return model


def ours(model: Any, **changes: Any) -> Transformer:
    """Our network with Marian's weights."""
    network = Transformer(dataclasses.replace(SHAPE, **changes)).eval()

    def linear(target: nn.Linear, *sources: nn.Linear) -> None:
        target.weight.copy_(torch.cat([source.weight for source in sources]))
        target.bias.copy_(torch.cat([source.bias for source in sources]))

    with torch.no_grad():
        network.target_embedding.weight.copy_(model.model.shared.weight)
        network.head.bias.copy_(model.final_logits_bias[0])
        for side in ("encoder", "decoder"):
            for block, theirs in zip(getattr(network, side), getattr(model.model, side).layers, strict=True):
                its = theirs.self_attn
                linear(block.attention.query_key_value, its.q_proj, its.k_proj, its.v_proj)
                linear(block.attention.output, its.out_proj)
                block.attention_norm.load_state_dict(theirs.self_attn_layer_norm.state_dict())
                if side == "decoder":
                    its = theirs.encoder_attn
                    linear(block.cross_attention.query, its.q_proj)
                    linear(block.cross_attention.key_value, its.k_proj, its.v_proj)
                    linear(block.cross_attention.output, its.out_proj)
                    block.cross_attention_norm.load_state_dict(theirs.encoder_attn_layer_norm.state_dict())
                linear(block.feed_forward.up, theirs.fc1)
                linear(block.feed_forward.down, theirs.fc2)
                block.feed_forward_norm.load_state_dict(theirs.final_layer_norm.state_dict())
    return network


def both_logits(model: Any, network: Transformer) -> tuple[Tensor, Tensor]:
    source, mask = pad_rows(SOURCES, PAD)
    target = torch.randint(1, PAD, (len(SOURCES), 9), generator=torch.Generator().manual_seed(2))
    target[:, 0] = PAD
    with torch.no_grad():
        expected = model(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target).logits
        return network(source, mask, target), expected


def test_logits_are_marians() -> None:
    model = marian().double()
    found, expected = both_logits(model, ours(model).double())
    assert 4.0 < expected.std() < 9.0
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"positions": "sinusoidal"},
        {"positions": "none"},
        {"scaled_embeddings": False},
        {"norm_place": "pre"},
        {"activation": "relu"},
        {"heads": 2},
        {"norm_epsilon": 1e-2},
    ],
)
def test_one_wrong_choice_gives_other_logits(wrong: dict[str, Any]) -> None:
    model = marian()
    found, expected = both_logits(model, ours(model, **wrong))
    assert (found - expected).abs().max() > 0.01


class EndAtTheLimit(transformers.LogitsProcessor):  # type: ignore[name-defined, misc]
    """Our rule at the longest: nothing but the end, at its own log-probability (transformers' own option makes it free)."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] < LIMIT:
            return scores
        kept = scores[:, END].clone()
        scores = torch.full_like(scores, -torch.inf)
        scores[:, END] = kept
        return scores


def search_of_transformers(model: Any, **settings: Any) -> tuple[list[list[list[int]]], list[list[float]]]:
    """Hypotheses and scores of generate(num_beams=5), each sentence's best first."""
    source, mask = pad_rows(SOURCES, PAD)
    found = model.generate(
        input_ids=source,
        attention_mask=mask.long(),
        num_beams=5,
        num_return_sequences=5,
        do_sample=False,
        max_new_tokens=LIMIT,
        bad_words_ids=[[PAD]],
        logits_processor=transformers.LogitsProcessorList([EndAtTheLimit()]),
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    rows = [row[1 : row.index(END)] for row in found.sequences.tolist()]
    scores = found.sequences_scores.tolist()
    return [rows[at : at + 5] for at in range(0, len(rows), 5)], [scores[at : at + 5] for at in range(0, len(rows), 5)]


def same(model: Any, settings: BeamSettings, **theirs: Any) -> bool:
    ids, scores = search_of_transformers(model, **theirs)
    found = beam_search(ours(model), SOURCES, settings)
    return all(
        [list(one.ids) for one in hypotheses] == expected
        and torch.allclose(torch.tensor([one.score for one in hypotheses]), torch.tensor(those), atol=1e-4)
        for hypotheses, expected, those in zip(found, ids, scores, strict=True)
    )


WAYS: list[tuple[float, Stopping, Any]] = [(1.0, "estimate", False), (0.6, "full", True), (1.0, "exact", "never")]


@pytest.mark.parametrize(("alpha", "stopping", "early"), WAYS)
@pytest.mark.parametrize("seed", [1, 2])
def test_hypotheses_and_scores_are_those_of_transformers(
    alpha: float, stopping: Stopping, early: Any, seed: int
) -> None:
    model = marian(3.0, end_bias=6.0, seed=seed)
    settings = BeamSettings(
        n_best=5, length_penalty="average", alpha=alpha, stopping=stopping, max_ratio=0.0, max_extra=LIMIT
    )
    theirs = {"length_penalty": alpha, "early_stopping": early}
    lengths = {len(row) for rows in search_of_transformers(model, **theirs)[0] for row in rows}
    assert len(lengths) > 3  # some end early, some at the limit
    assert same(model, settings, **theirs)
    assert not same(model, dataclasses.replace(settings, alpha=alpha - 0.5), **theirs)
    assert not same(model, dataclasses.replace(settings, length_penalty="gnmt"), **theirs)


def test_the_guard_against_repetition_is_that_of_transformers() -> None:
    model = marian(3.0, end_bias=3.0)
    settings = BeamSettings(
        n_best=5, length_penalty="none", stopping="full", max_ratio=0.0, max_extra=LIMIT, no_repeat_ngram=2
    )
    theirs = {"length_penalty": 0.0, "early_stopping": True, "no_repeat_ngram_size": 2}
    assert same(model, settings, **theirs)
    assert not same(model, dataclasses.replace(settings, no_repeat_ngram=0), **theirs)
