from __future__ import annotations

import json
from pathlib import Path

import pytest

from duihua.data.source import SourceConfig, open_source
from duihua.errors import ConfigError, DataError
from duihua.stages.configs.tokenizer import TokenizerConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.tokenizer import characters_per_token, draw_sample, run
from duihua.text.tokenizer import Tokenizer

ENGLISH = "the cat and the dog walk through the old town number "
CHINESE = "今天我们一起去公园看书，天气很好，第"


def write_source(path: Path, records: list[str]) -> SourceConfig:
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in records)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return SourceConfig(path=str(path), kind="text")


@pytest.fixture
def sources(tmp_path: Path) -> tuple[SourceConfig, ...]:
    english = write_source(tmp_path / "en.jsonl", [f"{ENGLISH}{n}" for n in range(900)])
    chinese = write_source(tmp_path / "zh.jsonl", [f"{CHINESE}{n}次" for n in range(300)])
    return (english, chinese)


def stage(directory: Path, sources: tuple[SourceConfig, ...], **changes: object) -> StageResult:
    config = TokenizerConfig(**({"sources": sources, "vocabulary_size": 320, "megabytes": 0.01} | changes))  # type: ignore[arg-type]
    return run(config, StageContext(directory=directory, data_directory=directory / "data"))


def test_the_sample_has_as_much_of_each_language_and_the_figures_are_of_held_out_text(
    sources: tuple[SourceConfig, ...], tmp_path: Path
) -> None:
    result = stage(tmp_path / "run", sources)
    metrics = result.metrics
    assert result.bundle == tmp_path / "run"
    assert metrics["vocabulary_size"] == 320 == Tokenizer.load(tmp_path / "run").vocabulary_size
    assert all(9_990 <= size <= 10_000 for size in metrics["sample_bytes"].values())
    assert metrics["characters_per_token"].keys() == {"en", "zh"}
    assert metrics["characters_per_token"]["en"] > 2 and metrics["characters_per_token"]["zh"] > 0.7
    held_out = [record.text for s in sources for record in open_source(s, tmp_path).records("heldout")]  # type: ignore[union-attr]
    assert sum(metrics["heldout_bytes"].values()) == sum(len(text.encode()) for text in held_out) > 0
    assert StageResult.load(tmp_path / "run") == result


def test_an_unbalanced_sample_costs_the_other_language_more(sources: tuple[SourceConfig, ...], tmp_path: Path) -> None:
    balanced = Tokenizer.train((r for s in draw(sources, tmp_path, 0.01).values() for r in s), 285)
    english_only = Tokenizer.train(draw(sources, tmp_path, 0.01)["en"], 285)
    chinese = [f"{CHINESE}{n}次" for n in range(5)]
    both = characters_per_token(balanced, chinese), characters_per_token(english_only, chinese)
    assert both[0] is not None and both[1] is not None and both[0] > 1.2 * both[1]


def draw(sources: tuple[SourceConfig, ...], directory: Path, megabytes: float) -> dict[str, list[str]]:
    opened = [open_source(source, directory) for source in sources]
    return draw_sample(opened, sources, "train", megabytes, 48.0)


def test_the_same_config_gives_the_same_tokenizer_whatever_the_order_of_records(
    sources: tuple[SourceConfig, ...], tmp_path: Path
) -> None:
    stage(tmp_path / "a", sources)
    turned = write_source(tmp_path / "turned.jsonl", [f"{ENGLISH}{n}" for n in reversed(range(900))])
    stage(tmp_path / "b", (turned, sources[1]))
    assert Tokenizer.load(tmp_path / "a").fingerprint == Tokenizer.load(tmp_path / "b").fingerprint


def test_a_larger_weight_gives_more_of_the_sample(tmp_path: Path) -> None:
    one = write_source(tmp_path / "one.jsonl", [f"first source number {n}" for n in range(600)])
    two = write_source(tmp_path / "two.jsonl", [f"second source number {n}" for n in range(600)])
    heavy = SourceConfig(path=two.path, kind="text", weight=4.0)
    taken = draw((one, heavy), tmp_path, 0.006)["en"]
    second = sum(text.startswith("second") for text in taken)
    assert 2.5 < second / (len(taken) - second) < 6.0
    assert not any(
        text.startswith("second")
        for text in draw((one, SourceConfig(path=two.path, weight=0.0)), tmp_path, 0.006)["en"]
    )


def test_a_language_that_is_not_there_has_no_figure(sources: tuple[SourceConfig, ...], tmp_path: Path) -> None:
    metrics = stage(tmp_path / "run", sources[:1], vocabulary_size=280).metrics
    assert metrics["characters_per_token"]["zh"] is None
    assert metrics["sample_bytes"]["zh"] == 0


def test_a_vocabulary_larger_than_the_data_allows_names_the_reachable_size(
    sources: tuple[SourceConfig, ...], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"allows a vocabulary of \d+, and 50000 was asked for"):
        stage(tmp_path / "run", sources, vocabulary_size=50_000)
    assert not (tmp_path / "run" / "tokenizer.json").exists()


def test_an_empty_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        stage(tmp_path / "run", (write_source(tmp_path / "empty.jsonl", []),))
    with pytest.raises(ConfigError, match="no source of text"):
        stage(tmp_path / "run", ())


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"^megabytes: must be above 0"):
        TokenizerConfig(megabytes=0)


def test_characters_and_words_of_the_same_text_stand_beside_the_tokenizer(
    sources: tuple[SourceConfig, ...], tmp_path: Path
) -> None:
    stage(tmp_path / "run", sources)
    view = json.loads((tmp_path / "run" / "token_view.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in view["vocabularies"]] == ["bytes", "characters", "words", "words-jieba"]
    assert all(each["ids"] <= 320 for each in view["vocabularies"])
    tokenizer = Tokenizer.load(tmp_path / "run")
    for one in view["texts"]:
        assert [span["id"] for span in one["rows"][0]["spans"]] == tokenizer.encode(one["text"])
    costs = view["heldout"]
    assert costs["characters"]["en"]["characters_per_token"] == 1.0
    assert costs["words"]["en"]["characters_per_token"] > costs["bytes"]["en"]["characters_per_token"]
    # What stands between two Chinese marks is one word, so a number makes all of it new; jieba cuts the number off.
    assert costs["words"]["zh"]["unknown_share"] > 2 * costs["words-jieba"]["zh"]["unknown_share"]
    assert costs["bytes"]["zh"]["unknown_share"] == 0
