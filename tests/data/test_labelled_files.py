"""Labelled sources: what a limit takes, held-out files of one's own, texts without labels, and what text stages refuse."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from duihua.data.check import TWO_LABELS, check
from duihua.data.records import (
    Choice,
    Document,
    Labelled,
    Record,
    hash_order,
    is_held_out,
    is_held_out_as_text,
    record_text,
)
from duihua.data.source import SourceConfig, open_source
from duihua.errors import ConfigError, DataError

ROWS = [{"text": f"{label} text number {n}", "label": label} for label in ("ham", "spam") for n in range(300)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def counted(records: list[Record]) -> Counter[str]:
    return Counter(record.label for record in records if isinstance(record, Labelled))


def test_a_limit_samples_the_training_part_and_keeps_the_test(tmp_path: Path) -> None:
    path = write(tmp_path / "mail.jsonl", ROWS)
    whole = open_source(SourceConfig(path=path, kind="labelled"), tmp_path)
    few = open_source(SourceConfig(path=path, kind="labelled", limit=60), tmp_path)
    train = list(few.records("train"))
    assert len(train) == 60
    assert 15 < counted(train)["ham"] < 45
    assert list(few.records("heldout")) == list(whole.records("heldout"))
    first = counted(list(whole.records("train"))[:60])
    assert first == Counter({"ham": 60})  # the control: the first ones are all of one class
    assert few.fingerprint() != whole.fingerprint()


def test_a_labelled_text_is_held_out_where_it_would_be_as_a_document_whatever_its_label() -> None:
    for row in ROWS:
        sides = {
            is_held_out(Document(row["text"], "s", "en")),
            is_held_out(Labelled((row["text"],), row["label"], "s", "en")),
            is_held_out(Labelled((row["text"] + " ",), "other", "t", "en")),
        }
        assert len(sides) == 1
    pairs = [Labelled((row["text"], "b"), "x", "s", "en") for row in ROWS]
    assert any(is_held_out(pair) != is_held_out(Labelled(pair.texts[:1], "x", "s", "en")) for pair in pairs)


def test_choices_with_one_context_stand_on_one_side() -> None:
    for number in range(200):
        sides = {
            is_held_out(Choice(context, options, 0, "s", "en"))
            for context in (f"question {number}", f"Question {number}?")
            for options in (("a", "b"), ("c", "d"))
        }
        assert len(sides) == 1


def test_draws_for_different_purposes_are_independent() -> None:
    documents = [Document(f"document {n}", "s", "en") for n in range(4000)]
    as_text = {document.text for document in documents if is_held_out_as_text(document)}
    usual = {document.text for document in documents if is_held_out(document)}
    early = {document.text for document in documents if hash_order(document) < 0.05 * 2**64}
    assert 150 < len(as_text) < 250
    assert len(as_text & usual) < 30  # ten expected
    assert len(as_text & early) < 30


def test_held_out_files_of_ones_own_leave_all_of_the_others_to_train_on(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", ROWS), write(tmp_path / "test.jsonl", ROWS[:4])
    source = open_source(SourceConfig(path=train, kind="labelled", heldout=test), tmp_path)
    assert len(list(source.records("train"))) == 600
    assert len(list(source.records("heldout"))) == 4
    alone = open_source(SourceConfig(path=train, kind="labelled"), tmp_path)
    assert len(list(alone.records("train"))) < 600
    assert source.fingerprint() != alone.fingerprint()
    report = check(source)
    assert report.problems["held-out record repeats a training record"] == 4
    with pytest.raises(ConfigError, match="own held-out part"):
        open_source(SourceConfig(name="mrpc", heldout=test), tmp_path)
    with pytest.raises(DataError, match="no such file"):
        open_source(SourceConfig(path=train, kind="labelled", heldout=str(tmp_path / "none.jsonl")), tmp_path)


def test_text_of_a_known_labelled_source_is_read_only_where_asked_and_never_the_test(tmp_path: Path) -> None:
    folder = tmp_path / "mrpc"
    folder.mkdir()
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    pairs = "".join(f"1\t1\t2\tFirst of {n}.\tSecond of {n}.\n" for n in range(40))
    (folder / "msr_paraphrase_train.txt").write_text(header + pairs)
    (folder / "msr_paraphrase_test.txt").write_text(header + "0\t1\t2\tA test.\tAnother test.\n")
    assert open_source(SourceConfig(name="mrpc"), tmp_path).kind == "labelled"
    text = open_source(SourceConfig(name="mrpc", kind="text"), tmp_path)
    assert text.kind == "text"
    train, heldout = list(text.records("train")), list(text.records("heldout"))
    assert all(isinstance(record, Document) for record in [*train, *heldout])
    assert len(train) + len(heldout) == 80
    assert 0 < len(heldout) < 16
    assert not any("test" in record_text(record) for record in [*train, *heldout])
    assert text.fingerprint() != open_source(SourceConfig(name="mrpc"), tmp_path).fingerprint()


def test_pretraining_and_tokenizer_refuse_labelled_sources_and_say_what_to_do(tmp_path: Path) -> None:
    from duihua.stages import pretrain, tokenizer
    from duihua.stages.configs.tokenizer import TokenizerConfig
    from duihua.stages.context import StageContext

    config = SourceConfig(path=write(tmp_path / "mail.jsonl", ROWS), kind="labelled")
    with pytest.raises(ConfigError, match=r"holds labelled.*set `kind: text`"):
        pretrain.token_shards([open_source(config, tmp_path)], (config,), None, tmp_path)  # type: ignore[arg-type]
    context = StageContext(tmp_path / "run", {}, tmp_path, "cpu", 0)
    with pytest.raises(ConfigError, match=r"holds labelled.*set `kind: text`"):
        tokenizer.run(TokenizerConfig(sources=(config,)), context)


def test_the_checker_finds_one_text_under_two_labels_and_counts_the_classes(tmp_path: Path) -> None:
    rows = [*ROWS[:3], {"text": "Ham, text number 1!", "label": "spam"}]
    path = write(tmp_path / "mail.jsonl", rows)
    report = check(open_source(SourceConfig(path=path, kind="labelled"), tmp_path))
    assert report.problems[TWO_LABELS] == 1
    assert report.examples[TWO_LABELS][0].place == f"{path}:4"
    assert report.labels == Counter({"ham": 3, "spam": 1})
    clean = check(open_source(SourceConfig(path=write(tmp_path / "b.jsonl", ROWS[:3]), kind="labelled"), tmp_path))
    assert not clean.problems[TWO_LABELS]
    quiz = [{"context": "q", "options": ["x", "y"], "answer": answer} for answer in (0, 1)]
    report = check(open_source(SourceConfig(path=write(tmp_path / "c.jsonl", quiz), kind="choices"), tmp_path))
    assert report.problems[TWO_LABELS] == 1
