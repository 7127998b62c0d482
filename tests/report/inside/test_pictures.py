"""Every picture: data that are JSON and true, a drawing in both languages, and texts that say the same in both."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.errors import ConfigError, DataError
from duihua.models.bundle import load_bundle
from duihua.models.model_card import ModelCard
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_bundle import save_recurrent
from duihua.models.recurrent_config import RecurrentConfig
from duihua.report import inside
from duihua.report.inside import (
    causal_mask,
    gates,
    model_sizes,
    norm_axes,
    padding_mask,
    positions,
    schedules,
    structure,
)
from duihua.report.inside.folders import subject_of
from duihua.report.inside.gallery import PICTURES, picture
from duihua.report.inside.style import drawn
from duihua.report.inside.subject import Look, Subject, look_at, short_names, token_label
from duihua.report.inside.walk_through import walk
from duihua.report.texts import Text
from duihua.text.words import WordVocabulary

SCORE = {"value": 40.0, "signature": "nrefs:1|tok:13a"}
BUCKETS = [{"length": length, "sentences": 9, "bleu": SCORE} for length in ("1-5", "6-10", "31+")]
MEASURED: dict[str, Any] = {
    "speed.json": {
        "times": [
            {"model": model, "length": length, "parameters": 9, "steps_per_second": 9.0, "tokens_per_second": 90.0}
            for model in ("rnn", "transformer", "other")
            for length in (8, 16)
        ]
    },
    "scores.json": {"test": {"fr-en": {"bleu": SCORE, "by_length": {"unit": "words", "buckets": BUCKETS}}}},
}


@pytest.fixture
def full(subject: Subject, tmp_path: Path) -> Subject:
    for name, content in MEASURED.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return replace(subject, measurements=[tmp_path / name for name in MEASURED])


@pytest.fixture(scope="module")
def reach() -> dict[str, Any]:
    """Measured once: it takes a second or two."""
    return PICTURES["gradient-reach"].data(Subject())


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_gives_json_and_is_drawn_in_both_languages(
    name: str, full: Subject, reach: dict[str, Any]
) -> None:
    one = PICTURES[name]
    found = reach if name == "gradient-reach" else one.data(full)
    found = json.loads(json.dumps(found, allow_nan=False))
    for language in ("en", "zh"):
        svg = drawn(lambda language=language: one.draw(found, language), "svg", name).decode("utf-8")
        assert svg.startswith("<?xml")
        assert len(re.findall(r"<text", svg)) > 3  # text stays text
        chinese = re.search("[\u4e00-\u9fff]{2}", re.sub("我爱你|你也爱我|也爱", "", svg))
        assert bool(chinese) == (language == "zh")


def test_a_second_drawing_is_the_same_to_the_byte() -> None:
    found = causal_mask.data(Subject())
    one, two = (drawn(lambda: causal_mask.draw(found, "en"), "svg", "causal-mask") for _ in range(2))
    assert one == two


def test_names_are_those_of_the_files_and_an_unknown_one_is_answered_with_the_nearest() -> None:
    assert all(re.fullmatch("[a-z-]+", name) for name in PICTURES)
    with pytest.raises(ConfigError, match="logit-lens"):
        picture("logit-len")


def test_both_languages_name_the_same_values() -> None:
    def texts(value: Any) -> list[Text]:
        if isinstance(value, Text):
            return [value]
        if isinstance(value, dict):
            return [text for one in value.values() for text in texts(one)]
        return [text for one in value for text in texts(one)] if isinstance(value, tuple) else []

    seen = 0
    for module in pkgutil.iter_modules(inside.__path__):
        for text in texts(tuple(vars(importlib.import_module(f"{inside.__name__}.{module.name}")).values())):
            fields = [set(re.findall(r"{(\w+)", one)) for one in text]
            assert fields[0] == fields[1], text
            assert "—" not in text.en
            seen += 1
    assert seen > 80


# -- masks ------------------------------------------------------------------------------------------------------------


def test_causal_mask_hides_with_minus_infinity_and_rows_add_up_to_one() -> None:
    found = causal_mask.data(Subject())
    for i, row in enumerate(found["weights"]):
        assert sum(row) == pytest.approx(1, abs=1e-3)
        assert all(weight == 0 for weight in row[i + 1 :])
        assert [score is None for score in found["masked"][i]] == [j > i for j in range(len(row))]
        zeros = causal_mask.softmax([score if score is not None else 0.0 for score in found["masked"][i]])
        assert i == len(row) - 1 or zeros[-1] > 0.01  # negative control: a mask of zeros hides nothing


def test_causal_mask_of_a_model_shows_its_own_scores(subject: Subject) -> None:
    found = causal_mask.data(subject)
    attention = subject.love.inside.attention[0]
    torch.testing.assert_close(torch.tensor(found["weights"]), attention.weights()[0, 0], atol=1e-3, rtol=0)
    assert found["tokens"] == ["我", "爱", "你"] or "".join(found["tokens"]) == "我爱你"


def test_pads_of_zeros_take_attention_until_they_are_masked() -> None:
    found = padding_mask.data(Subject())
    length = found["lengths"][0]
    assert sum(found["with_mask"][:length]) == pytest.approx(1, abs=1e-3)
    assert found["with_mask"][length:] == [0, 0]
    assert min(found["without_mask"][length:]) > 0.05
    alone = causal_mask.softmax(found["scores"][:length])
    assert found["with_mask"][:length] == pytest.approx(alone, abs=1e-4)


# -- positions, norms, schedules, structure ---------------------------------------------------------------------------


def test_products_of_positions_depend_on_the_distance_alone_and_a_wrong_table_does_not() -> None:
    found = PICTURES["position-products"].data(Subject())
    matrix = torch.tensor(found["matrix"])
    for distance in (1, 5, 30):
        assert float(matrix.diagonal(distance).std()) < 2e-3
        assert found["by_distance"]["20"][distance] == pytest.approx(float(matrix[0, distance]), abs=2e-3)
        assert found["rotary"][distance] == pytest.approx(2 * float(matrix[0, distance]), abs=1e-2)
    table = torch.tensor(positions.data(Subject())["sinusoidal"])
    shifted = table * torch.linspace(0.5, 1.5, 80)[:, None]  # negative control: vectors of unequal length
    assert float((shifted @ shifted.T).diagonal(5).std()) > 1


def test_layer_norm_leaves_a_token_alone_and_batch_norm_does_not_as_torch_has_them() -> None:
    found = norm_axes.data(Subject())
    assert found["layer_norm"][0] == found["layer_norm"][1]
    assert found["batch_norm"][0] != found["batch_norm"][1]
    for mates, layer, batch in zip(found["mates"], found["layer_norm"], found["batch_norm"], strict=True):
        rows = torch.tensor([found["token"], *mates])
        torch.testing.assert_close(torch.tensor(layer), torch.nn.LayerNorm(4)(rows)[0].detach(), atol=1e-3, rtol=0)
        torch.testing.assert_close(torch.tensor(batch), torch.nn.BatchNorm1d(4)(rows)[0].detach(), atol=1e-3, rtol=0)


def test_schedules_start_rise_and_fall_as_they_are_called() -> None:
    factors = schedules.data(Subject())["factors"]
    assert factors["step"][49:51] == [1.0, 0.5]
    assert factors["noam"][79] == pytest.approx(0.5)
    assert factors["cosine"][110] == pytest.approx(0.5, abs=1e-6)
    assert factors["plateau"][-1] < factors["plateau"][0]
    assert max(factors["wsd"]) == factors["wsd"][100] == 1


def test_gpt_has_the_decoders_sub_layers_but_for_cross_attention() -> None:
    found = structure.data(Subject())
    assert found["decoder"]["parts"] == ["masked_attention", "cross_attention", "feed_forward"]
    assert found["gpt"]["parts"] == [part for part in found["decoder"]["parts"] if part != "cross_attention"]
    assert found["encoder"]["parts"] == ["attention", "feed_forward"]
    assert [found[stack]["blocks"] for stack in ("encoder", "decoder", "gpt")] == [6, 6, 12]


def test_every_size_has_a_source_and_gpt_4_has_no_number() -> None:
    models = model_sizes.data(Subject())["models"]
    assert [model["date"] for model in models] == sorted(model["date"] for model in models)
    assert all(re.search(r"et al|OpenAI|Team|DeepSeek-AI|Workshop", model["source"]) for model in models)
    by_name = {model["name"]: model["parameters"] for model in models}
    assert by_name["GPT-4"] is None
    assert [name for name, size in by_name.items() if size is None] == ["GPT-4"]
    assert by_name["GPT-1"] == 117e6
    assert by_name["GPT-3"] == 175e9
    assert max(size for size in by_name.values() if size) < 1e13


def gpt(layers: int, width: int, tokens: int, positions: int, final: int = 1) -> int:
    """Biases everywhere, two norms a layer and `final` behind the last, feed-forward 4 times the width, the output tied."""
    matrices = 4 * width * width + 2 * width * 4 * width
    vectors = 4 * width + 4 * width + width + 4 * width
    return layers * (matrices + vectors) + (tokens + positions + 2 * final) * width


def encoder_decoder(width: int, inner: int, feed_forward: int, layers: int, tokens: int, bias: int, norm: int) -> int:
    """inner: width of all heads together. bias: 1 where the feed-forward has them. norm: numbers a norm has for each unit."""
    attention, ahead = 4 * width * inner, 2 * width * feed_forward + bias * (feed_forward + width)
    return tokens * width + layers * (3 * attention + 2 * ahead + 5 * norm * width)


def gated(
    layers: int, width: int, queries: int, keys: int, feed_forward: int, norms: int, matrices_of_tokens: int
) -> int:
    """No biases, a feed-forward of three matrices; queries, keys: widths of all heads of a kind."""
    layer = 2 * width * queries + 2 * width * keys + 3 * width * feed_forward + norms * width
    return layers * layer + (matrices_of_tokens + 1) * width


COUNTS = {
    "Transformer (big)": encoder_decoder(1024, 1024, 4096, 6, 37_000, bias=1, norm=2),
    "GPT-1": gpt(12, 768, 40_478, 512, final=0),
    "T5-11B": encoder_decoder(1024, 128 * 128, 65_536, 24, 32_128, bias=0, norm=1) + 2 * 1024 + 2 * 32 * 128,
    "GPT-3": gpt(96, 12_288, 50_257, 2048),
    "PaLM": gated(118, 18_432, 48 * 256, 256, 4 * 18_432, 1, 256_000),
    "OPT-175B": gpt(96, 12_288, 50_272, 2050),
    "BLOOM": gpt(70, 14_336, 250_880, 0, final=2),  # a norm behind the embedding too
    "Llama 2 70B": gated(80, 8192, 64 * 128, 8 * 128, 28_672, 2, 2 * 32_000),
}
"""Parameters of the published shapes; those of GPT-1, GPT-3, OPT, BLOOM, T5 and Llama 2 are what transformers counts too."""


def test_checked_sizes_follow_from_the_published_shapes() -> None:
    models = {model["name"]: model for model in model_sizes.data(Subject())["models"]}
    assert {name for name, model in models.items() if "checked" in model} == set(COUNTS)
    for name, count in COUNTS.items():
        assert models[name]["checked"].startswith(f"{count:,} by arithmetic"), name
        assert abs(count / models[name]["parameters"] - 1) < 0.03, name
    one_layer_less = gpt(95, 12_288, 50_257, 2048)  # control: a count of another shape is another number
    assert f"{one_layer_less:,}" not in models["GPT-3"]["checked"]


# -- a model ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft", "gpt2"])
def test_walk_through_ends_where_the_network_does(name: str, models: Path) -> None:
    bundle = load_bundle(models / name)
    look = look_at(bundle.policy, bundle.tokenizer, "我爱你")
    for layer in range(2):
        for head in range(2):
            found = walk(look, layer, head)
            assert found["difference"] < 1e-5
            weights = torch.tensor(found["steps"]["weights"])
            torch.testing.assert_close(weights, look.inside.attention[layer].weights()[0, head], atol=1e-4, rtol=0)
            assert ("turned_query" in found["steps"]) == (name == "sft")  # GPT-2 neither norms nor turns
    attention = look.inside.attention[0]
    broken = replace(attention, scale=1.0)  # negative control: without the division the end is another one
    look.inside.attention[0] = broken
    module = look.network.get_submodule(attention.name)
    with torch.no_grad():
        wrong = module.output(broken.mixed()[0].transpose(0, 1).flatten(1))
    assert attention.output_btd is not None
    assert float((wrong - attention.output_btd[0]).abs().max()) > 1e-3


def test_the_lens_of_the_last_layer_is_the_models_own_prediction(subject: Subject) -> None:
    look: Look = subject.look
    layers = PICTURES["logit-lens"].data(subject)["layers"]
    best = look.logits_tv.softmax(-1).max(-1)
    for place, top in enumerate(layers[-1]):
        assert top[0][0] == look.label(int(best.indices[place]))
        assert top[0][1] == pytest.approx(float(best.values[place]), abs=1e-3)
    assert layers[0] != layers[-1]


def test_cosines_are_between_neighbouring_layers(subject: Subject) -> None:
    found = PICTURES["layer-change"].data(subject)
    states = subject.look.inside.states["blocks"]
    expected = torch.cosine_similarity(states[1][0], states[0][0], dim=-1)
    torch.testing.assert_close(torch.tensor(found["previous"][0]), expected, atol=1e-3, rtol=0)
    assert found["mean_last"][-1] == found["mean_first"][0] == 1


def test_cross_attention_has_a_row_for_each_token_written(subject: Subject) -> None:
    found = PICTURES["cross-attention"].data(subject)
    assert found["source"][-1] == found["target"][-1] == "<end>"
    weights = torch.tensor(found["weights"])
    assert weights.shape == (2, 2, len(found["target"]), len(found["source"]))
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]), atol=2e-3, rtol=0)


def test_translators_of_several_runs_go_by_the_names_of_their_runs(tmp_path: Path) -> None:
    for run, direction in (("transformer", "fr-en"), ("rnn", "fr-en")):
        (tmp_path / run / "translate").mkdir(parents=True)
        result = {"metrics": {"test": {direction: {"bleu": SCORE, "by_length": {"unit": "words", "buckets": BUCKETS}}}}}
        (tmp_path / run / "translate" / "result.json").write_text(json.dumps(result), encoding="utf-8")
    several = subject_of([tmp_path / "transformer", tmp_path / "rnn"])
    found = PICTURES["bleu-by-length"].data(several)
    assert [model["name"] for model in found["models"]] == ["transformer", "rnn"]
    for run in ("transformer", "rnn"):
        (tmp_path / run / "translate" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n', encoding="utf-8")
    assert list(subject_of([tmp_path / "transformer", tmp_path / "rnn"]).metrics) == ["transformer", "rnn"]
    one = PICTURES["bleu-by-length"].data(subject_of([tmp_path / "rnn"]))
    assert [model["name"] for model in one["models"]] == ["translate"]
    assert short_names([Path("/a/b.json"), Path("/c/b.json")]) == ["a", "c"]
    assert short_names([Path("/a/b.json"), Path("/a/c.json"), Path("/d/b.json")]) == ["a/b", "a/c", "d/b"]


def test_scores_of_the_command_and_lines_of_the_benchmark_can_be_drawn(tmp_path: Path) -> None:
    scores, speed = tmp_path / "score.json", tmp_path / "speed.jsonl"
    of_a_model = {"test": "multi30k-fr-en", "direction": "fr-en", "bleu": SCORE, "by_length": {"buckets": BUCKETS}}
    scores.write_text(json.dumps(of_a_model), encoding="utf-8")
    lines = [{"part": "reach"}, {"part": "speed", **MEASURED["speed.json"]}]
    speed.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    subject = Subject(measurements=[scores, speed])
    (model,) = PICTURES["bleu-by-length"].data(subject)["models"]
    assert (model["name"], model["direction"], model["bleu"]) == ("score", "fr-en", 40.0)
    assert PICTURES["length-speed"].data(subject)["times"] == MEASURED["speed.json"]["times"]
    with pytest.raises(DataError, match="BLEU by sentence length"):
        PICTURES["bleu-by-length"].data(Subject(measurements=[speed]))


def test_gates_lie_between_zero_and_one_and_are_sorted(subject: Subject) -> None:
    found = PICTURES["gates"].data(subject)
    means = [sum(row) for row in found["gates"]["forget"]]
    assert means == sorted(means, reverse=True)
    assert all(0 <= value <= 1 for gate in found["gates"].values() for row in gate for value in row)
    assert len(found["gates"]["input"][0]) == len(found["tokens"])


def test_gates_are_shown_on_a_sentence_that_the_vocabulary_knows(tmp_path: Path) -> None:
    words = WordVocabulary.train([gates.PREPARED])
    network = RecurrentLM(RecurrentConfig(vocabulary_size=words.vocabulary_size, width=12)).initialise(0)
    save_recurrent(tmp_path, network, words, ModelCard(title="lstm", stage="recurrent"))
    for language in ("en", "zh"):
        found = PICTURES["gates"].data(Subject(recurrent=tmp_path, language=language))
        assert found["tokens"] == gates.PREPARED.split()
    given = PICTURES["gates"].data(Subject(recurrent=tmp_path, text="he wrote"))
    assert given["tokens"] == ["he", "<unk:wrote>"]
    characters = WordVocabulary.train(["我爱你，你也爱我。"], segmentation="jieba")
    assert gates.best_known(characters, "zh") == "我爱你，你也爱我。" == gates.best_known(characters, "en")


def test_gradient_of_the_lstm_reaches_further_than_the_rnns(reach: dict[str, Any]) -> None:
    norms = {(one["cell"], one["forget_bias"], one["recurrent_scale"]): one["norms"] for one in reach["curves"]}
    assert norms["lstm", 1.0, 1.0][50] > 1e6 * norms["rnn", None, 1.0][50]
    assert math.isclose(norms["rnn", None, 1.0][0], 1, rel_tol=1e-6)


# -- what a user can get wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"), [("", "no text to look at"), ("abc " * 60, "tokens are more than the 64")]
)
def test_a_text_that_is_empty_or_too_long_is_refused(subject: Subject, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        PICTURES["attention"].data(replace(subject, text=text))


def test_what_a_picture_cannot_show_is_said(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too many to follow"):
        PICTURES["walk-through"].data(replace(subject, text="I love you, and you love me, and we all love them."))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "accuracy": 0.5}\n', encoding="utf-8")
    with pytest.raises(DataError, match="no loss was recorded"):
        PICTURES["loss-curves"].data(Subject(metrics={"x": tmp_path / "metrics.jsonl"}))
    with pytest.raises(DataError, match="steps per second"):
        PICTURES["length-speed"].data(Subject(measurements=[]))


def test_tokens_are_readable_whatever_their_bytes() -> None:
    assert token_label(b" you\n") == "␣you⏎"
    assert token_label("我".encode()[:2]) == "⟨E6 88⟩"
    assert token_label("\u202e".encode()) == "⟨202E⟩"
    assert token_label(b"") == "∅"
