"""The translator stage on languages that anyone can check: a made-up one whose sentences are English ones word by word,
reversed."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from duihua.data.parallel.batches import EncodedPair, padded_batch
from duihua.data.source import SourceConfig, open_source
from duihua.engine.beam_settings import BeamSettings
from duihua.engine.translation_model import TranslationModel
from duihua.errors import ConfigError, DataError, GenerationError
from duihua.files import sha256_file
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.stages import translate
from duihua.stages.configs.translate import TranslateConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.translate import TranslationLoss, token_loss
from duihua.stages.translation_pairs import read_pairs
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig

DICTIONARY = {
    "bo": "red",
    "ka": "blue",
    "mi": "cat",
    "lu": "dog",
    "so": "sings",
    "ta": "runs",
    "ne": "one",
    "fi": "two",
}


def sentences(count: int, seed: int, shortest: int = 3) -> Iterator[tuple[str, str]]:
    """(sentence of the made-up language xx, its English): word by word, in the opposite order, no word twice. Each once
    for a seed."""
    draw = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        words = draw.sample(list(DICTIONARY), draw.randint(shortest, 4))
        if " ".join(words) not in seen:
            seen.add(" ".join(words))
            yield " ".join(words), " ".join(DICTIONARY[word] for word in reversed(words))


def write_pairs(path: Path, pairs: Iterator[tuple[str, str]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"xx": source, "en": target}) + "\n" for source, target in pairs), "utf-8")
    return str(path)


def settings(folder: Path, count: int = 1100, **changes: Any) -> TranslateConfig:
    """A training of a few seconds."""
    base = TranslateConfig(
        sources=(SourceConfig(path=write_pairs(folder / "pairs.jsonl", sentences(count, 1)), languages="xx-en"),),
        from_language="xx", to_language="en", vocabulary_size=296, longest=40, epochs=12, batch_tokens=500,
        transformer=TransformerConfig(
            width=48, encoder_layers=1, decoder_layers=1, heads=4, feed_forward_width=96, most_tokens=64,
            norm_place="post", dropout=0.0,
        ),
        recurrent=RecurrentTranslatorConfig(width=32, hidden_width=48, most_tokens=64, dropout=0.0),
        optimizer=OptimizerConfig(kind="adam", learning_rate=5e-3, beta1=0.9, beta2=0.98, epsilon=1e-9),
        schedule=ScheduleConfig(kind="noam", warmup_steps=60), average=2, validation_pairs=20,
        trainer=TrainerConfig(log_every=10, checkpoint_seconds=1e9, evaluate_every=120),
        search=BeamSettings(beam=3, stopping="estimate"),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def train(folder: Path, config: TranslateConfig, seed: int = 0) -> StageResult:
    return translate.run(config, StageContext(folder, seed=seed, data_directory=folder / "data"))


def exact(model: TranslationModel, pairs: list[tuple[str, str]], beam: int = 3) -> float:
    """Share of sentences whose translation is right to the letter."""
    answers = model.translate(
        [source for source, _ in pairs], model.directions[0], BeamSettings(beam=beam, stopping="estimate")
    )
    return sum(found[0].text == right for found, (_, right) in zip(answers, pairs, strict=True)) / len(pairs)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("translator")
    return folder / "run", train(folder / "run", settings(folder))


def test_it_learns_a_dictionary_and_the_order_of_words(learnt: tuple[Path, StageResult]) -> None:
    folder, result = learnt
    model = TranslationModel.load(folder)
    known = {source for source, _ in sentences(1100, 1)}
    unseen = [pair for pair in sentences(300, 2) if pair[0] not in known][:60]
    assert len(unseen) == 60
    assert exact(model, unseen) > 0.95
    assert result.metrics["test"]["xx-en"]["bleu"]["value"] > 90


def test_an_untrained_network_knows_nothing_of_it(learnt: tuple[Path, StageResult]) -> None:
    """Negative control of the test above: the same check rejects random weights."""
    model = TranslationModel.load(learnt[0])
    assert isinstance(model.network, Transformer)
    random_model = TranslationModel(Transformer(model.network.config).initialise(7), model.inputs, model.directions)
    assert exact(random_model, list(sentences(30, 2)), beam=1) == 0.0


def test_no_bleu_stands_without_its_signature(learnt: tuple[Path, StageResult]) -> None:
    """Wherever the result has a number called BLEU or chrF, the signature stands beside it."""
    found = 0

    def look(value: Any, name: str = "") -> None:
        nonlocal found
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("bleu", "chrf"):
                    assert set(inner) == {"value", "signature"}
                    assert inner["signature"].startswith("nrefs:")
                    found += 1
                elif key == "validation_bleu":
                    assert value["validation_bleu_signature"].startswith("nrefs:")
                    found += 1
                else:
                    look(inner, key)
        elif isinstance(value, list):
            for inner in value:
                look(inner, name)

    look(learnt[1].metrics)
    assert found >= 6
    card = (learnt[0] / "README.md").read_text(encoding="utf-8")
    assert "nrefs:1" in card or "nrefs:var" in card


def test_the_kept_weights_are_the_mean_of_the_last_snapshots(learnt: tuple[Path, StageResult]) -> None:
    from safetensors.torch import load_file

    folder, result = learnt
    assert result.metrics["kept"] == "averaged"
    snapshots = [load_file(path) for path in sorted((folder / "snapshots").glob("step-*.safetensors"))]
    assert len(snapshots) == 2
    stored = load_file(folder / "model.safetensors")
    for name, weight in stored.items():
        assert torch.allclose(weight, (snapshots[0][name] + snapshots[1][name]) / 2, atol=1e-7)
    assert any(not torch.allclose(weight, snapshots[1][name], atol=1e-7) for name, weight in stored.items())


def quick(folder: Path, **changes: Any) -> TranslateConfig:
    """A training of a second."""
    trainer = TrainerConfig(log_every=5, checkpoint_seconds=1e9, evaluate_every=10)
    return settings(folder, 200, epochs=4, vocabulary_size=272, batch_tokens=400, trainer=trainer, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult, TranslateConfig]:
    """A quick training that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    config = quick(folder)
    return folder / "run", train(folder / "run", config), config


@pytest.mark.parametrize("stop", ["step", "evaluation"])
def test_an_interrupted_training_ends_with_the_same_bits(
    tmp_path: Path,
    whole: tuple[Path, StageResult, TranslateConfig],
    killed: Callable[[Any, str, int], AbstractContextManager[None]],
    stop: str,
) -> None:
    """Ended between two steps, or between a checkpoint and the evaluation that belongs to it; then run again."""
    folder, result, config = whole
    again = tmp_path / "again"
    if stop == "step":
        with killed(TranslationLoss, "__call__", 17):
            train(again, config)
    else:
        with killed(translate.Validation, "measure", 2):
            train(again, config)
    resumed = train(again, config)
    assert sha256_file(again / "model.safetensors") == sha256_file(folder / "model.safetensors")
    assert len(result.metrics["curve"]) >= 2
    assert resumed.metrics["curve"] == result.metrics["curve"]
    assert resumed.metrics["test"] == result.metrics["test"]


def test_the_best_weights_are_refused_where_nothing_tells_which_they_are(
    tmp_path: Path, whole: tuple[Path, StageResult, TranslateConfig]
) -> None:
    """A source that is all for training has no validation part: each snapshot would be called the best one, so the last."""
    only = dataclasses.replace(
        whole[2],
        sources=(SourceConfig(name="everyday-fr-en", limit=60),),
        from_language="fr",
        vocabulary_size=262,
        epochs=1,
    )
    with pytest.raises(ConfigError, match=r"translate\.keep: .*no such part.*averaged or last"):
        train(tmp_path / "best", dataclasses.replace(only, keep="best"))
    assert not (tmp_path / "best" / "snapshots").exists()
    result = train(tmp_path / "last", dataclasses.replace(only, keep="last"))  # control: what needs none goes on
    assert result.metrics["kept"] == "last" and "best" not in result.metrics["candidates"]
    assert not (tmp_path / "last" / "snapshots" / "best.safetensors").exists()
    assert (
        "validation_bleu" in whole[1].metrics["candidates"]["best"]
    )  # and where there is such a part, there is a best


def test_every_impossible_setting_says_what_to_do() -> None:
    for name in ("longest", "epochs", "batch_tokens", "micro_batches", "validation_pairs", "average"):
        with pytest.raises(ConfigError, match=name) as caught:
            TranslateConfig(**{name: 0})
        assert caught.value.remedy
    for changes in ({"test_limit": -1}, {"label_smoothing": 1.0}, {"sources": ()}, {"vocabulary_size": 10}):
        with pytest.raises(ConfigError) as caught:
            TranslateConfig(**changes)
        assert caught.value.remedy


def test_another_seed_ends_with_other_bits(tmp_path: Path, whole: tuple[Path, StageResult, TranslateConfig]) -> None:
    """Negative control of the test above: its check tells two trainings apart."""
    train(tmp_path / "other", whole[2], seed=1)
    assert sha256_file(tmp_path / "other" / "model.safetensors") != sha256_file(whole[0] / "model.safetensors")


def test_one_model_learns_both_directions_by_tags(tmp_path: Path) -> None:
    result = train(tmp_path / "run", quick(tmp_path, both_directions=True))
    assert set(result.metrics["test"]) == {"xx-en", "en-xx"}
    model = TranslationModel.load(tmp_path / "run")
    assert set(model.directions) == {("xx", "en"), ("en", "xx")}
    (one, _), (other, _) = (model.encode(["red cat"], direction)[0] for direction in model.directions)
    assert one[0] != other[0] and one[1:] == other[1:]
    assert model.inputs.tokenizer.decode([one[0]]) == ""
    with pytest.raises(ConfigError, match="several ways"):
        model.direction()
    assert model.direction(to_language="xx") == ("en", "xx")


def test_an_unknown_direction_and_a_text_that_is_too_long_are_refused(learnt: tuple[Path, StageResult]) -> None:
    model = TranslationModel.load(learnt[0])
    with pytest.raises(ConfigError, match=r"does not translate en to xx.*xx to en"):
        model.direction("en", "xx")
    with pytest.raises(GenerationError, match=r"text 2.*the model reads 64"):
        model.translate(["bo", "bo " * 100], ("xx", "en"))
    found = model.translate(["bo ka mi", "", "bo " * 100], ("xx", "en"), cut=True)
    assert [each[0].text == "" for each in found] == [False, True, False]
    assert found[2][0].cut_tokens > 0


@pytest.mark.parametrize("attention", ["none", "additive"])
def test_a_recurrent_network_trains_with_and_without_attention(tmp_path: Path, attention: Any) -> None:
    shape = RecurrentTranslatorConfig(width=24, hidden_width=32, attention=attention, most_tokens=64, dropout=0.0)
    config = quick(tmp_path, network="recurrent", recurrent=shape)
    result = train(tmp_path / "run", config)
    losses = [line["validation_loss"] for line in result.metrics["curve"]]
    assert losses[-1] < losses[0]
    assert TranslationModel.load(tmp_path / "run").network.config == dataclasses.replace(
        shape, vocabulary_size=272, start_id=1, end_id=2, pad_id=3
    )


def tiny_network() -> Transformer:
    shape = TransformerConfig(
        vocabulary_size=19, width=16, encoder_layers=1, decoder_layers=1, heads=2, feed_forward_width=16, dropout=0.0
    )
    return Transformer(shape).initialise(3)


PAIRS = [EncodedPair((5, 6, 2), (7, 8, 9, 2)), EncodedPair((5, 2), (11, 2)), EncodedPair((12, 13, 14, 15, 2), (4, 2))]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_loss_is_torchs_smoothed_cross_entropy_over_the_real_tokens(smoothing: float) -> None:
    network, batch = tiny_network().eval(), padded_batch(PAIRS, start_id=1, pad_id=3)
    parts = TranslationLoss(smoothing)(network, batch)
    logits = network(batch["source"], batch["source_mask"], batch["target"])
    wanted = F.cross_entropy(
        logits.flatten(0, 1), batch["next"].flatten(), ignore_index=3, label_smoothing=smoothing, reduction="sum"
    )
    assert parts.weight == 8
    assert parts.sum.item() == pytest.approx(wanted.item(), rel=1e-5)
    # and by the formula, on the one real token of the shortest target
    chances = logits[1, 0].log_softmax(dim=-1)
    formula = -(1 - smoothing) * chances[11] - smoothing / 19 * chances.sum()
    alone = padded_batch([PAIRS[1]], 1, 3)
    first = network.next_token_losses(
        network.hidden(alone["source"], alone["source_mask"], alone["target"])[:, :1], alone["next"][:, :1],
        torch.ones(1, 1), smoothing,
    )[0]  # fmt: skip
    assert first.item() == pytest.approx(formula.item(), rel=1e-4)
    if smoothing:  # negative control: smoothing over the wrong tokens only, as some toolkits do, is another loss
        others = -(1 - smoothing) * chances[11] - smoothing / 18 * (chances.sum() - chances[11])
        assert first.item() != pytest.approx(others.item(), rel=1e-4)


def test_padding_changes_neither_the_loss_nor_the_validation_loss(tmp_path: Path) -> None:
    network = tiny_network().eval()
    together = TranslationLoss(0.1)(network, padded_batch(PAIRS, 1, 3))
    apart = [TranslationLoss(0.1)(network, padded_batch([pair], 1, 3)) for pair in PAIRS]
    assert together.sum.item() == pytest.approx(sum(part.sum.item() for part in apart), rel=1e-5)
    config = settings(tmp_path, 10, batch_tokens=1)
    many = settings(tmp_path, 10, batch_tokens=10000)
    assert token_loss(network, PAIRS, config, "cpu") == pytest.approx(token_loss(network, PAIRS, many, "cpu"), rel=1e-5)


def test_a_test_text_of_one_source_is_not_trained_on_from_another(tmp_path: Path) -> None:
    """Source two repeats a test pair of source one on its English side alone; training must leave it out, and say so."""
    first = settings(tmp_path, 300).sources[0]
    one = open_source(first, tmp_path)
    plain = read_pairs([one], ("xx", "en"))
    leaked = {pair.texts[1] for pair in plain.test}
    assert len(leaked) > 5
    lines = iter(
        [(f"others {i}", text) for i, text in enumerate(leaked)] + [(f"zz {i}", f"harmless {i}") for i in range(20)]
    )
    second = SourceConfig(path=write_pairs(tmp_path / "second.jsonl", lines), languages="xx-en")
    found = read_pairs([one, open_source(second, tmp_path)], ("xx", "en"))
    trained = {pair.texts[1] for group in found.train for pair in group}
    assert leaked.isdisjoint(trained) and any(text.startswith("harmless") for text in trained)
    assert found.left_out.counts["training pair shares a text with the test of another source"] > 0
    assert found.overlap == 0
    alone = {pair.texts[1] for pair in read_pairs([open_source(second, tmp_path)], ("xx", "en")).train[0]}
    assert not leaked.isdisjoint(alone)  # negative control: by itself the second source would have trained on them


def test_lines_that_cannot_be_used_are_counted_once_for_every_file(tmp_path: Path) -> None:
    """Three parts are read out of two files: what the training file loses is told too, and not once for each part."""
    train = write_pairs(tmp_path / "train.jsonl", iter([("", "empty"), *sentences(60, 1)]))
    test = write_pairs(tmp_path / "test.jsonl", iter([("", "empty"), ("", "again"), *sentences(20, 2)]))
    source = open_source(SourceConfig(path=train, heldout=test, languages="xx-en"), tmp_path)
    assert sum(read_pairs([source], ("xx", "en")).left_out.counts.values()) == 3
    alone = open_source(SourceConfig(path=train, languages="xx-en"), tmp_path)
    assert sum(read_pairs([alone], ("xx", "en")).left_out.counts.values()) == 1


def test_pairs_of_other_languages_and_impossible_settings_are_refused(tmp_path: Path) -> None:
    config = quick(tmp_path)
    with pytest.raises(DataError, match=r"xx-en, and fr-en is asked for"):
        train(tmp_path / "run", dataclasses.replace(config, from_language="fr"))
    with pytest.raises(ConfigError, match="two languages"):
        dataclasses.replace(config, to_language="xx")
    with pytest.raises(ConfigError, match="most_tokens"):
        dataclasses.replace(config, longest=100)
    with pytest.raises(ConfigError, match="vocabulary"):
        train(tmp_path / "large", dataclasses.replace(config, vocabulary_size=4000))
