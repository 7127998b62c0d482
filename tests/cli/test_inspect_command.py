from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duihua.cli.inspect import main
from duihua.errors import BundleError
from duihua.models.bundle import Normalisation, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.heads import ScoredDecoder
from duihua.models.model_card import ModelCard
from duihua.text.tokenizer import Tokenizer


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
