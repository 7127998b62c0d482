from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.cli.inspect import main, parse_count
from duihua.cli.inspect_text import layer_name, long_time, scaled, size
from duihua.errors import BundleError, ConfigError
from duihua.models.bundle import Normalisation, save_bundle
from duihua.models.classifier import Classifier
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.heads import ScoredDecoder
from duihua.models.model_card import ModelCard
from duihua.models.task_bundle import TaskSettings, save_task_bundle
from duihua.text.tokenizer import Tokenizer
from duihua.training import speed


@pytest.fixture(scope="module")
def network() -> Decoder:
    torch.manual_seed(0)
    return Decoder(DecoderConfig(vocabulary_size=262, width=8, layers=2, heads=2, head_width=4, feed_forward_width=12))


@pytest.fixture(scope="module")
def bundle(network: Decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "sft"
    terms = [{"name": "wiki", "licence": "CC BY-SA 4.0"}]
    save_bundle(directory, network, Tokenizer.train(["ab ab ab"], 262), ModelCard("A", "sft", terms=terms))
    return directory


def test_json_is_one_object_that_adds_up(bundle: Path, network: Decoder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["total"] == parameter_count(network)
    assert sum(group["parameters"] for group in found["parameters"]["groups"]) == parameter_count(network)
    assert found["config"]["vocabulary_size"] == found["tokenizer"]["vocabulary_size"] == 262
    assert found["stop_ids"] == [2, 0] and found["kind"] == "policy"
    assert found["disk_bytes"] == sum(file.stat().st_size for file in bundle.iterdir())
    assert found["terms"][0]["licence"] == "CC BY-SA 4.0"


def test_the_page_for_people_shows_total_stops_and_terms(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "blocks.*.attention.query.weight" in shown and "total" in shown
    assert "a reply ends at 2 <|im_end|>, 0 <|endoftext|>." in shown
    assert "CC BY-SA 4.0" in shown


def test_a_reward_model_without_tokenizer(network: Decoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored = ScoredDecoder(network)
    save_bundle(
        tmp_path,
        scored,
        Tokenizer.train(["ab ab ab"], 262),
        ModelCard("A", "reward"),
        normalisation=Normalisation(1.0, 2.0),
    )
    (tmp_path / "tokenizer.json").unlink()
    main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "No tokenizer" in shown and "mean 1, standard deviation 2" in shown and "score.weight" in shown


def test_a_directory_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no config\.json"):
        main([str(tmp_path)])


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_preset_is_inspected_without_a_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "gpt1", "--batch", "1", "--time", "16")
    assert found["parameters"]["total"] == 116_534_784
    assert found["parameters"]["tied"] == ["head"]
    layers = found["shapes"]["layers"]
    assert sum(layer["parameters"] * layer["copies"] for layer in layers) == 116_534_784
    assert (layers[0]["input"], layers[0]["output"]) == ([1, 16], [1, 16, 40478])
    assert [layer["copies"] for layer in layers if layer["name"] == "blocks.0"] == [12]
    assert "Radford" in found["about"] and "Xiong" in found["config_notes"]["norm_place"]
    smaller = as_json(capsys, "gpt1", "--vocabulary-size", "1000", "--batch", "1", "--time", "16", "--all")
    assert smaller["parameters"]["total"] == 116_534_784 - 768 * (40_478 - 1000)
    assert {layer["copies"] for layer in smaller["shapes"]["layers"]} == {1}
    assert [layer["name"] for layer in smaller["shapes"]["layers"]].count("blocks.11") == 1


def test_memory_work_and_generation_of_a_bundle(
    bundle: Path, network: Decoder, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, str(bundle), "--batch", "2", "--time", "8", "--optimizer", "adamw")
    memory, count = found["training_memory_bytes"], parameter_count(network)
    assert (memory["weights"], memory["gradients"], memory["optimizer"]["adamw"]) == (4 * count, 4 * count, 8 * count)
    assert memory["optimizer"]["sgd"] == 4 * count < memory["optimizer"]["muon"] < 8 * count
    kept = memory["activations"]
    assert memory["total"] == 16 * count + kept["loss"] + kept["plain"]
    assert memory["total"] - memory["total_checkpointed"] == kept["plain"] - kept["checkpointed"]
    assert found["flops_per_token"]["training"] == 3 * found["flops_per_token"]["forward"]
    assert found["optimizer_flops_per_step"] == 0
    assert found["generation"]["cache_bytes"]["float32"] == found["memory_bytes"]["cache_per_token"]
    assert "speed" not in found


@pytest.fixture()
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("measure_steps", "measure_products"):
        monkeypatch.setattr(speed, name, functools.partial(getattr(speed, name), seconds=0.05))


@pytest.mark.usefixtures("quick")
def test_a_budget_of_tokens_becomes_a_time_on_this_machine(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = (bundle / "model.safetensors").read_bytes()
    found = as_json(capsys, str(bundle), "--batch", "2", "--time", "8", "--tokens", "2M")
    assert found["speed"]["method"] == "training steps" and found["speed"]["steps"] >= 1
    assert found["budget"]["tokens"] == 2_000_000
    assert found["budget"]["seconds"] == pytest.approx(2_000_000 / found["speed"]["tokens_per_second"])
    assert (bundle / "model.safetensors").read_bytes() == stored
    main([str(bundle), "--batch", "2", "--time", "8", "--tokens", "2M"])
    shown = capsys.readouterr().out
    assert re.search("training steps? of 2 x 8 tokens", shown) and "2,000,000 tokens take" in shown


@pytest.mark.usefixtures("quick")
def test_reward_models_and_classifiers_are_measured_with_their_own_heads(
    network: Decoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.train(["ab ab ab"], 262)
    save_bundle(tmp_path / "reward", ScoredDecoder(network), tokenizer, ModelCard("A", "reward"))
    found = as_json(capsys, str(tmp_path / "reward"), "--batch", "2", "--time", "8", "--tokens", "1k")
    assert found["generation"] is None and found["speed"]["steps"] >= 1
    assert found["flops_per_token"]["head"] == 2 * 8

    settings = TaskSettings("classification", ("good", "bad", "neither"), 16)
    classifier = Classifier(Decoder(network.config).initialise(0), "classification", 3).initialise(0)
    save_task_bundle(tmp_path / "task", classifier, tokenizer, ModelCard("A", "classify"), settings)
    found = as_json(capsys, str(tmp_path / "task"), "--batch", "2", "--time", "8", "--tokens", "1k")
    assert found["kind"] == "classifier" and found["task"]["classes"] == ["good", "bad", "neither"]
    assert found["parameters"]["total"] == parameter_count(classifier)
    assert found["speed"]["steps"] >= 1


@pytest.mark.usefixtures("quick")
def test_a_model_too_large_to_train_here_is_bounded_by_its_products(capsys: pytest.CaptureFixture[str]) -> None:
    main(["gpt1", "--batch", "100000", "--tokens", "15T"])
    shown = capsys.readouterr().out
    assert "matrix products at" in shown and "15,000,000,000,000 tokens take at least" in shown and "years" in shown


def test_the_page_for_people_shows_shapes_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fast", "--batch", "1", "--time", "8"])
    shown = capsys.readouterr().out
    assert "blocks.0 (x2 alike: 0, 2)" in shown and "blocks.1 (x2 alike: 1, 3)" in shown
    assert "rule of thumb: 6 x parameters" in shown
    assert "activation: relu_squared" in shown and "So et al. 2021" in shown


def test_numbers_for_people() -> None:
    assert [parse_count(text) for text in ("10M", "1.5B", "2e9", "300k", "1,000", "2t", "7")] == [
        *(10_000_000, 1_500_000_000, 2_000_000_000, 300_000, 1000, 2_000_000_000_000, 7),
    ]
    for text in ("ten", "", "-5", "0", "1.5X", "nan", "inf", "M"):
        with pytest.raises(ConfigError, match="is not a number of tokens"):
            parse_count(text)
    assert (size(512), size(1536), size(5 * 2**30)) == ("512 B", "1.5 KiB", "5.0 GiB")
    assert (scaled(12.0), scaled(1.5e9), scaled(2.51e12)) == ("12 ", "1.5 G", "2.51 T")
    assert long_time(90) == "1m30s" and long_time(3 * 86_400) == "3.0 days" and long_time(1e8) == "3.2 years"
    line = {"name": "blocks.0.attention.query", "kind": "Linear", "copies": 3, "members": [0, 1, 2], "tied": False}
    assert layer_name(line) == "      query"


def test_what_cannot_be_is_refused_with_a_remedy(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no such directory.*gpt1"):
        main(["gpt11"])
    with pytest.raises(ConfigError, match="has its own vocabulary"):
        main([str(bundle), "--vocabulary-size", "300"])
    with pytest.raises(ConfigError, match="within the model's context of 512"):
        main(["gpt1", "--time", "513"])
    with pytest.raises(ConfigError, match="at least 1"):
        main(["gpt1", "--batch", "0"])
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no cuda"):
            main(["qwen3", "--batch", "1", "--time", "8", "--tokens", "1M", "--device", "cuda"])
