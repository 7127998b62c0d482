"""The formulas of GPT-1's paper on a case of two tokens that plain Python works out without a matrix library.

Radford et al. 2018, section 3.1: equation 1, L1 = sum_i log P(u_i | u_i-k .. u_i-1); equation 2, h_0 = U W_e + W_p, h_l =
transformer_block(h_l-1), P(u) = softmax(h_n W_e^T). One layer, one head, width 3, three words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.presets import preset
from duihua.stages.pretrain import language_model_loss

Vector = list[float]
Matrix = list[list[float]]

EPSILON = 1e-5
WORDS: Matrix = [[0.5, -1.0, 0.3], [1.5, 0.25, -0.4], [-0.75, 1.25, 0.6]]  # W_e: a row a word
PLACES: Matrix = [[0.1, 0.2, -0.5], [-0.3, 0.4, 0.7], [0.25, -0.6, 0.1]]  # W_p: a row a place
QUERY: Matrix = [[1.0, -0.5, 0.2], [0.25, 0.75, -0.6], [0.3, 0.1, 0.9]]
KEY: Matrix = [[0.5, 1.0, -0.7], [-1.0, 0.3, 0.4], [0.2, -0.8, 0.6]]
VALUE: Matrix = [[0.8, -0.2, 0.5], [0.1, 0.9, -0.3], [-0.6, 0.4, 0.7]]
OUTPUT: Matrix = [[0.6, 0.7, -0.1], [-0.4, 1.1, 0.2], [0.3, -0.5, 0.8]]
UP: Matrix = [[1.0, -1.0, 0.4], [0.5, 0.5, -0.9], [-0.2, 0.9, 0.1], [0.3, -0.7, 1.2]]  # four units
DOWN: Matrix = [[0.2, -0.6, 1.0, 0.4], [0.9, 0.1, -0.3, 0.5], [-0.7, 0.8, 0.2, -0.1]]
BIASES: dict[str, Vector] = {
    "attention.query": [0.1, -0.1, 0.2],
    "attention.key": [0.05, 0.2, -0.3],
    "attention.value": [-0.15, 0.3, 0.1],
    "attention.output": [0.2, 0.1, -0.25],
    "feed_forward.up": [0.1, -0.2, 0.3, 0.0],
    "feed_forward.down": [-0.1, 0.25, 0.15],
}
NORMS: dict[str, tuple[Vector, Vector]] = {
    "attention_norm": ([1.1, 0.9, 1.3], [0.05, -0.05, 0.1]),
    "feed_forward_norm": ([0.8, 1.2, 0.7], [0.3, -0.2, 0.15]),
}
TEXT = [2, 0]


def network(**changes: object) -> Decoder:
    """The same numbers as a decoder of the preset gpt1."""
    fields: dict[str, object] = {
        "vocabulary_size": 3,
        "width": 3,
        "layers": 1,
        "heads": 1,
        "key_value_heads": 1,
        "head_width": 3,
        "feed_forward_width": 4,
        "context": 3,
        "norm_epsilon": EPSILON,
    }
    made = Decoder(preset("gpt1", **(fields | changes))).eval()
    block = "blocks.0."
    matrices = {
        "embedding": WORDS,
        "position_embedding": PLACES,
        f"{block}attention.query": QUERY,
        f"{block}attention.key": KEY,
        f"{block}attention.value": VALUE,
        f"{block}attention.output": OUTPUT,
        f"{block}feed_forward.up": UP,
        f"{block}feed_forward.down": DOWN,
    }
    state = {f"{name}.weight": torch.tensor(matrix) for name, matrix in matrices.items()}
    state |= {f"{block}{name}.bias": torch.tensor(bias) for name, bias in BIASES.items()}
    for name, (weight, bias) in NORMS.items():
        state |= {f"{block}{name}.weight": torch.tensor(weight), f"{block}{name}.bias": torch.tensor(bias)}
    made.load_state_dict(state, strict=False)
    return made


def product(matrix: Matrix, vector: Sequence[float], bias: Vector | None = None) -> Vector:
    sums = [sum(weight * x for weight, x in zip(row, vector, strict=True)) for row in matrix]
    return sums if bias is None else [a + b for a, b in zip(sums, bias, strict=True)]


def normed(vector: Vector, name: str) -> Vector:
    mean = sum(vector) / len(vector)
    variance = sum((x - mean) ** 2 for x in vector) / len(vector)
    weight, bias = NORMS[name]
    return [(x - mean) / math.sqrt(variance + EPSILON) * w + b for x, w, b in zip(vector, weight, bias, strict=True)]


def softmax(scores: Vector) -> Vector:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def added(a: Vector, b: Vector) -> Vector:
    return [x + y for x, y in zip(a, b, strict=True)]


def embedded(text: list[int]) -> Matrix:
    """h_0 = U W_e + W_p."""
    return [added(WORDS[word], PLACES[place]) for place, word in enumerate(text)]


def block_by_hand(h: Matrix) -> Matrix:
    """transformer_block: attention, added and normed; feed-forward, added and normed."""
    queries, keys, values = (
        [product(matrix, x, BIASES[f"attention.{name}"]) for x in h]
        for name, matrix in (("query", QUERY), ("key", KEY), ("value", VALUE))
    )
    result = []
    for place, x in enumerate(h):
        seen = range(place + 1)
        weights = softmax(
            [sum(a * b for a, b in zip(queries[place], keys[s], strict=True)) / math.sqrt(3) for s in seen]
        )
        mixed = [sum(weights[s] * values[s][e] for s in seen) for e in range(3)]
        attended = normed(added(x, product(OUTPUT, mixed, BIASES["attention.output"])), "attention_norm")
        units = [gelu(unit) for unit in product(UP, attended, BIASES["feed_forward.up"])]
        result.append(normed(added(attended, product(DOWN, units, BIASES["feed_forward.down"])), "feed_forward_norm"))
    return result


def chances(text: list[int]) -> Matrix:
    """P(u) = softmax(h_n W_e^T) after each place."""
    return [softmax(product(WORDS, h)) for h in block_by_hand(embedded(text))]


def test_h0_is_the_words_embedding_plus_that_of_its_place() -> None:
    made = network()
    first: list[torch.Tensor] = []
    made.blocks[0].register_forward_pre_hook(lambda _, arguments: first.append(arguments[0]))
    made(torch.tensor([TEXT]))
    assert first[0][0].tolist() == [pytest.approx(h, abs=1e-6) for h in embedded(TEXT)]
    assert first[0][0].tolist() != [pytest.approx(WORDS[word], abs=1e-6) for word in TEXT]  # control: without W_p


def test_the_block_and_the_distribution_are_those_worked_out_by_hand() -> None:
    with torch.no_grad():
        made = network()
        hidden, logits = made.hidden(torch.tensor([TEXT]))[0], made(torch.tensor([TEXT]))[0]
    assert hidden.tolist() == [pytest.approx(h, abs=1e-5) for h in block_by_hand(embedded(TEXT))]
    assert torch.softmax(logits, dim=-1).tolist() == [pytest.approx(p, abs=1e-5) for p in chances(TEXT)]
    with torch.no_grad():  # controls: ReLU, and norms before the addition
        for changes in ({"activation": "relu"}, {"norm_place": "pre"}):
            other = network(**changes).hidden(torch.tensor([TEXT]))[0]
            assert other.tolist() != [pytest.approx(h, abs=1e-3) for h in block_by_hand(embedded(TEXT))]


def test_the_loss_is_minus_the_log_likelihood_of_equation_1() -> None:
    parts = language_model_loss(network(), {"token_ids": torch.tensor([TEXT[:1]]), "targets": torch.tensor([TEXT[1:]])})
    likelihood = math.log(chances(TEXT)[0][TEXT[1]])
    assert float(parts.sum.detach()) == pytest.approx(-likelihood, abs=1e-5)
    assert parts.weight == 1.0
    # controls: the word itself as its target, and the distribution one place further on
    assert float(parts.sum.detach()) != pytest.approx(-math.log(chances(TEXT)[0][TEXT[0]]), abs=1e-2)
    assert float(parts.sum.detach()) != pytest.approx(-math.log(chances(TEXT)[1][TEXT[1]]), abs=1e-2)


def test_a_text_of_three_words_has_two_targets_each_the_word_after() -> None:
    text = [2, 0, 1]
    batch = {"token_ids": torch.tensor([text[:-1]]), "targets": torch.tensor([text[1:]])}
    parts = language_model_loss(network(), batch)
    of_each = chances(text[:-1])
    by_hand = -math.log(of_each[0][text[1]]) - math.log(of_each[1][text[2]])
    assert (float(parts.sum.detach()), parts.weight) == (pytest.approx(by_hand, abs=1e-5), 2.0)
    assert float(parts.sum.detach()) != pytest.approx(
        -math.log(of_each[1][text[2]]), abs=1e-2
    )  # control: one label a sentence


def test_the_head_is_the_embeddings_own_matrix_without_bias_and_learns_from_both_ends() -> None:
    made = network()
    assert made.head.weight is made.embedding.weight and made.head.bias is None
    batch = {"token_ids": torch.tensor([TEXT[:1]]), "targets": torch.tensor([TEXT[1:]])}
    (both,) = torch.autograd.grad(language_model_loss(made, batch).sum, made.embedding.weight)
    untied = network(tied_embeddings=False)
    with torch.no_grad():
        untied.head.weight.copy_(torch.tensor(WORDS))
    looked_up, predicted = torch.autograd.grad(
        language_model_loss(untied, batch).sum, (untied.embedding.weight, untied.head.weight)
    )
    assert torch.allclose(both, looked_up + predicted, atol=1e-6)
    assert not torch.allclose(both, predicted, atol=1e-3)
    assert looked_up[[0, 1]].abs().sum() == 0 and predicted.abs().sum(dim=1).min() > 0
    assert parameter_count(untied) - parameter_count(made) == 3 * 3


def test_an_untrained_model_holds_every_word_equally_likely_and_so_the_loss_starts_at_ln_v() -> None:
    for size in (50, 500):
        config = DecoderConfig(
            vocabulary_size=size, width=32, layers=2, heads=2, head_width=16, feed_forward_width=64, context=16
        )
        made = Decoder(config).initialise(0)
        ids = torch.randint(0, size, (4, 17), generator=torch.Generator().manual_seed(0))
        parts = language_model_loss(made, {"token_ids": ids[:, :-1], "targets": ids[:, 1:]})
        assert float(parts.sum.detach()) / parts.weight == pytest.approx(math.log(size), rel=0.01)
    nn.init.normal_(made.head.weight, std=1.0)  # control: large logits are a conviction, and a wrong one
    parts = language_model_loss(made, {"token_ids": ids[:, :-1], "targets": ids[:, 1:]})
    assert float(parts.sum.detach()) / parts.weight > 1.5 * math.log(500)
