"""The classifier against transformers' double heads, and what must not change its answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from duihua.models.classifier import Classifier, class_probabilities, collate
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.text.task_inputs import Task, TaskInput

WORDS, WIDTH, LAYERS, HEADS, CONTEXT = 50, 32, 2, 4, 24
GPT: dict[str, Any] = {
    "vocabulary_size": WORDS, "width": WIDTH, "layers": LAYERS, "heads": HEADS, "key_value_heads": HEADS,
    "head_width": WIDTH // HEADS, "feed_forward_width": 4 * WIDTH, "context": CONTEXT, "positions": "learned",
    "norm": "layer", "norm_epsilon": 1e-5, "query_key_norm": "none", "activation": "gelu_tanh", "gated": False,
    "attention_bias": True, "feed_forward_bias": True, "tied_embeddings": True, "initialisation": "normal",
}  # fmt: skip
GPT1 = DecoderConfig(**GPT, norm_place="post", final_norm=False)
GPT2 = DecoderConfig(**GPT)
QWEN3 = DecoderConfig(WORDS, 32, 2, 4, 2, 8, 48, CONTEXT)
START, DELIMITER, EXTRACT = WORDS, WORDS + 1, WORDS + 2


def rough(network: torch.nn.Module, seed: int = 0, size: float = 0.3) -> None:
    """Weights large enough for logits of a few units."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=generator) * size
            weight.copy_(1.0 + 0.3 * noise if weight.ndim == 1 and name.endswith("weight") else noise)


def classifier(config: DecoderConfig = QWEN3, task: Task = "classification", classes: int = 3) -> Classifier:
    made = Classifier(Decoder(config).initialise(0), task, classes)
    rough(made)
    return made.eval()


def example(*texts: list[int], both: bool = False) -> TaskInput:
    """Sequences of one example; a list of two texts a sequence is <start> a <delimiter> b <extract>."""

    def row(parts: list[list[int]]) -> tuple[int, ...]:
        ids = [START, *parts[0]]
        for part in parts[1:]:
            ids += [DELIMITER, *part]
        return (*ids, EXTRACT)

    parts = list(texts)
    return TaskInput((row(parts), row(parts[::-1])) if both else (row(parts),))


def logits(network: Classifier, *examples: TaskInput) -> Tensor:
    batch = collate(examples, pad_id=0)
    with torch.no_grad():
        found: Tensor = network(batch["token_ids"], batch["rows"])
    return found


# -- against transformers ---------------------------------------------------------------------------------------------


def reference(kind: str) -> Any:
    """transformers' model with a language-model head and a multiple-choice head; three rows of its embedding are ours."""
    shape = {"vocab_size": WORDS + 3, "n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    torch.manual_seed(0)
    network: Any
    if kind == "gpt1":
        network = transformers.OpenAIGPTDoubleHeadsModel(transformers.OpenAIGPTConfig(**shape))
    else:
        network = transformers.GPT2DoubleHeadsModel(transformers.GPT2Config(**shape))
    rough(network)
    with torch.no_grad():
        network.multiple_choice_head.summary.bias.zero_()  # adds the same to every option; the paper has none
    return network.eval()


def ported(network: Any, config: DecoderConfig) -> Classifier:
    """The same weights in our classifier, name by name."""
    made = Classifier(Decoder(config).initialise(0), "multiple_choice", 0).eval()
    theirs = {name.removeprefix("transformer."): weight for name, weight in network.named_parameters()}
    embedding = theirs.pop("tokens_embed.weight" if "tokens_embed.weight" in theirs else "wte.weight")
    positions = theirs.pop("positions_embed.weight" if "positions_embed.weight" in theirs else "wpe.weight")
    state = {"embedding.weight": embedding[:WORDS], "position_embedding.weight": positions}
    for layer in range(LAYERS):
        old, new = f"h.{layer}.", f"blocks.{layer}."
        for part in ("weight", "bias"):
            thirds = theirs[f"{old}attn.c_attn.{part}"].chunk(3, dim=-1)
            for name, third in zip(("query", "key", "value"), thirds, strict=True):
                state[f"{new}attention.{name}.{part}"] = third.t() if part == "weight" else third
            for theirs_name, name in (
                ("attn.c_proj", "attention.output"), ("mlp.c_fc", "feed_forward.up"), ("mlp.c_proj", "feed_forward.down"),
            ):  # fmt: skip
                weight = theirs[f"{old}{theirs_name}.{part}"]
                state[f"{new}{name}.{part}"] = weight.t() if part == "weight" else weight
            state[f"{new}attention_norm.{part}"] = theirs[f"{old}ln_1.{part}"]
            state[f"{new}feed_forward_norm.{part}"] = theirs[f"{old}ln_2.{part}"]
    for part in ("weight", "bias"):
        if f"ln_f.{part}" in theirs:
            state[f"final_norm.{part}"] = theirs[f"ln_f.{part}"]
    state["head.weight"] = state["embedding.weight"]
    made.decoder.load_state_dict(state)
    with torch.no_grad():
        made.task_embeddings["embedding"].copy_(embedding[WORDS:])
        made.score.weight.copy_(theirs["multiple_choice_head.summary.weight"])
    return made


@pytest.mark.parametrize(("kind", "config"), [("gpt1", GPT1), ("gpt2", GPT2)])
def test_choices_and_words_are_scored_as_transformers_double_heads_score_them(kind: str, config: DecoderConfig) -> None:
    theirs = reference(kind)
    ours = ported(theirs, config)
    rows = [
        (START, 3, 4, 5, DELIMITER, 6, EXTRACT), (START, 3, 4, 5, DELIMITER, 7, 8, 9, EXTRACT),
        (START, 11, DELIMITER, 12, 13, EXTRACT), (START, 11, DELIMITER, 14, EXTRACT),
    ]  # fmt: skip
    batch = collate([TaskInput((rows[0], rows[1])), TaskInput((rows[2], rows[3]))], pad_id=0)
    ids = batch["token_ids"]
    with torch.no_grad():
        found = theirs(ids.view(2, 2, -1), mc_token_ids=torch.tensor([[6, 8], [5, 4]]))
        made = ours(ids, batch["rows"])
        words = ours.decoder.logits(ours.hidden(ids)).view(2, 2, *ids.shape[1:], WORDS)
        elsewhere = theirs(ids.view(2, 2, -1), mc_token_ids=torch.tensor([[5, 7], [4, 3]])).mc_logits
    assert found.mc_logits.abs().max() > 0.5
    assert (made - found.mc_logits).abs().max() < 1e-4
    assert (words - found.logits[..., :WORDS]).abs().max() < 1e-4
    assert (made - elsewhere).abs().max() > 1e-2  # negative control: one token before the extract token


def test_the_exact_gelu_would_be_noticed() -> None:
    theirs = reference("gpt1")
    wrong = ported(theirs, DecoderConfig(**{**GPT, "activation": "gelu"}, norm_place="post", final_norm=False))
    ids = torch.tensor([[START, 3, 4, 5, EXTRACT], [START, 6, 7, 8, EXTRACT]])
    with torch.no_grad():
        found = theirs(ids[None], mc_token_ids=torch.tensor([[4, 4]])).mc_logits
        made = wrong(ids, torch.tensor([[0, 1]]))
    assert (made - found).abs().max() > 1e-4


# -- what an answer depends on ----------------------------------------------------------------------------------------


def test_similarity_does_not_depend_on_the_order_of_the_texts() -> None:
    network = classifier(task="similarity", classes=2)
    one, other = [3, 4, 5, 6], [7, 8]
    forth, back = logits(network, example(one, other, both=True)), logits(network, example(other, one, both=True))
    assert (forth - back).abs().max() < 1e-5
    single = classifier(task="entailment", classes=2)  # negative control: one order only
    assert (logits(single, example(one, other)) - logits(single, example(other, one))).abs().max() > 1e-2


@pytest.mark.parametrize("config", [QWEN3, GPT1], ids=["rotary", "learned positions"])
def test_padding_on_either_side_and_batch_mates_change_nothing(config: DecoderConfig) -> None:
    network = classifier(config)
    short, long = example([3, 4]), example([5, 6, 7, 8, 9])
    alone = torch.cat([logits(network, short), logits(network, long)])
    together = logits(network, short, long)
    assert (together - alone).abs().max() < 1e-5
    batch = collate([short, long], pad_id=0)
    left = batch["token_ids"].clone()
    left[0] = left[0].roll(3)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7])
    with torch.no_grad():
        padded = network(left, batch["rows"], attention_mask_rt=mask)
        unmasked = network(left, batch["rows"])
    assert (padded - alone).abs().max() < 1e-5
    assert (unmasked - alone).abs().max() > 1e-3  # negative control: pads on the left are seen without a mask


def test_mean_pooling_reads_the_average_from_the_start_to_the_extract_token() -> None:
    network = classifier()
    network.pooling = "mean"
    short, long = example([3, 4]), example([5, 6], [7, 8, 9])
    with torch.no_grad():
        hidden = [network.hidden(torch.tensor([one.rows[0]]))[0] for one in (short, long)]
        expected = torch.stack([network.score(vectors.mean(dim=0)) for vectors in hidden])
        texts_only = torch.stack([network.score(vectors[1:-1].mean(dim=0)) for vectors in hidden])
    together = logits(network, short, long)
    assert (together - expected).abs().max() < 1e-5  # the pads behind the short one do not count
    batch = collate([short, long], pad_id=0)
    left = batch["token_ids"].clone()
    left[0] = left[0].roll(4)
    mask = torch.tensor([[0] * 4 + [1] * 4, [1] * 8])
    with torch.no_grad():
        padded = network(left, batch["rows"], attention_mask_rt=mask)
        with_pads = network.score(network.hidden(batch["token_ids"]).mean(dim=1))
    assert (padded - expected).abs().max() < 1e-5
    # negative controls: pads counted, task tokens left out, the extract token alone
    assert (with_pads[0] - expected[0]).abs().max() > 1e-2
    assert (texts_only - expected).abs().max() > 1e-2
    network.pooling = "extract"
    assert (logits(network, short, long) - expected).abs().max() > 1e-2


def test_choices_are_a_softmax_over_the_options_of_their_example() -> None:
    network = classifier(task="multiple_choice")
    rows = [(START, 3, DELIMITER, end, EXTRACT) for end in (5, 6, 7, 8, 9)]
    three, two = TaskInput(tuple(rows[:3])), TaskInput(tuple(rows[3:]))
    singles = []
    with torch.no_grad():
        for row in rows:
            hidden = network.hidden(torch.tensor([row]))[0, -1]
            singles.append(float(hidden @ network.score.weight[0]))
    first, second = (torch.tensor(part).exp() for part in (singles[:3], singles[3:]))
    chances = class_probabilities(network, [three, two], 0)
    assert chances[0] == pytest.approx((first / first.sum()).tolist(), abs=1e-5)
    assert chances[1] == pytest.approx((second / second.sum()).tolist(), abs=1e-5)
    assert logits(network, three, two)[1, 2] == -torch.inf
    everything = torch.tensor(singles).softmax(0)[:3].tolist()  # negative control: over all sequences of the batch
    assert chances[0] != pytest.approx(everything, abs=1e-3)


def test_dropout_is_off_in_evaluation_and_on_in_training() -> None:
    network = classifier()
    assert torch.equal(logits(network, example([3, 4])), logits(network, example([3, 4])))
    network.train()
    assert not torch.equal(logits(network, example([3, 4])), logits(network, example([3, 4])))
    chances = class_probabilities(network, [example([3, 4])] * 2, 0)
    assert chances[0] == pytest.approx(chances[1], abs=1e-6)  # rows of one product may be added up in different orders
    assert network.training  # as it was


def test_many_examples_of_all_lengths_come_back_in_their_order() -> None:
    network = classifier()
    examples = [example([3 + n % 5] * (1 + n * 7 % 11)) for n in range(30)]
    together = class_probabilities(network, examples, 0, micro_batch=8)
    alone = [class_probabilities(network, [one], 0)[0] for one in examples]
    assert torch.tensor(together) == pytest.approx(torch.tensor(alone), abs=1e-5)


def test_many_options_are_read_a_few_sequences_at_a_time() -> None:
    network = classifier(task="multiple_choice")
    counts = (3, 2, 5, 2, 9, 2, 2)
    examples = [
        TaskInput(tuple((START, 3 + number, DELIMITER, 5 + option, EXTRACT) for option in range(count)))
        for number, count in enumerate(counts)
    ]
    alone = [class_probabilities(network, [one], 0)[0] for one in examples]
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    together = class_probabilities(network, examples, 0, micro_batch=6)
    assert seen == [3 + 2, 5, 2, 9, 2 + 2]  # an example with more options than that stays whole
    for found, expected, count in zip(together, alone, counts, strict=True):
        assert len(found) == count
        assert found == pytest.approx(expected, abs=1e-5)


# -- the decoder inside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": True}, {"value_embeddings": True}], ids=str)
def test_the_decoder_inside_stays_what_it_was(changes: dict[str, Any]) -> None:
    config = DecoderConfig(WORDS, 32, 2, 4, 2, 8, 48, CONTEXT, **changes)
    plain = Decoder(config).initialise(0)
    rough(plain)
    before = {name: weight.clone() for name, weight in plain.state_dict().items()}
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        said = plain(ids)
        network = Classifier(plain, "classification", 2).initialise(0).eval()
        assert torch.equal(network.decoder(ids), said)
    after = network.decoder.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    tied = network.decoder.head.weight is network.decoder.embedding.weight
    assert tied == bool(config.tied_embeddings)
    network(torch.tensor([[START, 3, EXTRACT]]), torch.tensor([[0]])).sum().backward()
    own = network.task_embeddings["embedding"].grad
    assert own is not None
    assert own[0].abs().sum() > 0 and own[1].abs().sum() == 0 and own[2].abs().sum() > 0
    assert len(network.task_embeddings) == (2 if config.value_embeddings else 1)


def test_only_the_tokens_of_the_texts_are_counted_for_the_language_model() -> None:
    network = classifier()
    ids = torch.tensor([[START, 3, 4, DELIMITER, 5, EXTRACT, 0, 0], [0, 0, 0, START, 6, DELIMITER, 7, EXTRACT]])
    expected = torch.tensor([[0, 1, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 1, 0]], dtype=torch.bool)
    assert torch.equal(network.text_mask(ids), expected)
