from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duihua.cli.inspect import main
from duihua.errors import ConfigError
from duihua.models.model_card import ModelCard
from duihua.models.recurrent_translator import RecurrentTranslator
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.models.translation_bundle import TranslatorNetwork, save_translator
from duihua.models.translator_shapes import module_shapes
from duihua.text.tokenizer import Tokenizer

SMALL = TransformerConfig(40, width=16, encoder_layers=3, decoder_layers=2, heads=2, feed_forward_width=24)


def asked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_base_model_adds_up_to_its_last_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(["transformer-base", "--batch", "2", "--time", "5"], capsys)
    assert found["parameters"]["total"] == 63_045_632
    lines = {line["name"]: line for line in found["shapes"]["layers"]}
    assert sum(line["parameters"] * line["copies"] for line in lines.values()) == 63_045_632
    assert lines["decoder.0.cross_attention.key_value"]["output"] == [2, 5, 1024]
    assert lines["encoder.0"]["copies"] == 6 and "encoder.1" not in lines
    assert lines["head"]["tied"] and lines["head"]["parameters"] == 0
    assert asked(["transformer-base", "--vocabulary-size", "1000"], capsys)["parameters"]["total"] == 44_613_632


def test_a_translators_folder_is_shown_with_its_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer.train(["je suis, I am"] * 3, 262)
    network = RecurrentTranslator(RecurrentTranslatorConfig(262, width=8, hidden_width=6, cell="lstm")).initialise(0)
    card = ModelCard("T", "translate", terms=[{"name": "pairs", "licence": "CC BY 2.0"}])
    save_translator(tmp_path / "t", network, tokenizer, ("fr", "en"), card)
    found = asked([str(tmp_path / "t")], capsys)
    assert found["languages"] == ["fr", "en"] and found["terms"][0]["name"] == "pairs"
    assert found["parameters"]["total"] == sum(weight.numel() for weight in network.parameters())
    assert main([str(tmp_path / "t")]) == 0
    shown = capsys.readouterr().out
    assert "translator, fr to en" in shown and "CC BY 2.0" in shown and f"{found['parameters']['total']:,}" in shown
    for wrong in (["--tokens", "1M"], ["--time", "1000"], ["--batch", "0"], ["--vocabulary-size", "9"]):
        with pytest.raises(ConfigError) as caught:
            main([str(tmp_path / "t"), *wrong])
        assert caught.value.where == wrong[0]


@pytest.mark.parametrize(
    "network",
    [
        Transformer(SMALL),
        Transformer(
            TransformerConfig(40, width=16, heads=2, positions="learned", tied_embeddings="none", norm_place="pre")
        ),
        RecurrentTranslator(RecurrentTranslatorConfig(40, width=8, hidden_width=6, layers=2)),
        RecurrentTranslator(RecurrentTranslatorConfig(40, width=8, hidden_width=6, attention="none", cell="rnn")),
    ],
)
def test_every_parameter_belongs_to_one_line(network: TranslatorNetwork) -> None:
    lines = module_shapes(network.eval(), 2, 4)
    assert sum(line.parameters * line.copies for line in lines) == sum(w.numel() for w in network.parameters())
    assert lines[0].name == "" and lines[0].output == (2, 4, 40)
    assert sum(line.parameters for line in lines) < sum(w.numel() for w in network.parameters()) or not any(
        line.copies > 1 for line in lines
    )
