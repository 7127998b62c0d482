"""What a person can get wrong: each fault is one line with its remedy, exit code 2, and nothing saved is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duihua.cli.main import main

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.yaml"

Fails = Callable[..., str]


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUIHUA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must leave with 2 and one line on standard error, in which all of `words` stand."""

    def check(argv: list[str], *words: str) -> str:
        capsys.readouterr()
        assert main(argv) == 2, argv
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1, said
        assert said.startswith("duihua: ")
        assert said.endswith((".\n", "?\n"))
        for word in words:
            assert word in said, said
        return said

    return check


@pytest.fixture
def copied(tiny_run: Any, tmp_path: Path) -> Path:
    """The finished run, to be spoilt."""
    return Path(shutil.copytree(tiny_run.directory, tmp_path / "run"))


@pytest.fixture
def bundle(tiny_run: Any, tmp_path: Path) -> Path:
    """The PPO bundle, to be spoilt."""
    ignored = shutil.ignore_patterns("checkpoints", "rollouts")
    return Path(shutil.copytree(tiny_run.directory / "ppo", tmp_path / "bundle", ignore=ignored))


def saved(*folders: Path) -> dict[Path, str]:
    """Every file below the folders and its hash; not the lock, in which each command writes its process id."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [path for path in files if path.name != ".lock"]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def every_reader(directory: Path, tmp_path: Path) -> list[list[str]]:
    """The commands that open a bundle."""
    return [
        ["chat", str(directory), "--message", "Hello"],
        ["inspect", str(directory)],
        ["serve", str(directory), "--port", "0", "--store", str(tmp_path / "conversations.sqlite3")],
        [
            *("sft", "--input", str(directory), "--output", str(tmp_path / "made"), "--threads", "1"),
            *("--set", "sources=[{name: tiny-chat}]"),
        ],
    ]


# -- files and data -----------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(fails: Fails) -> None:
    fails(["run", "none.yaml"], "none.yaml", "no such file", "Check the path")
    fails(["chat", "none", "--message", "x"], "none", "no such directory", "Name a bundle")
    fails(["inspect", "none"], "none", "no such directory", "Name a bundle")
    fails(["serve", "none", "--port", "0"], "none", "no such folder", "Give a bundle")
    fails(["data", "check", "none.jsonl", "--kind", "conversations"], "none.jsonl", "no such file")
    fails(["sft", "--output", "made", "--input", "none"], "none", "no such folder", "Check the path")
    fails(
        ["tokenizer", "--output", "made", "--set", "sources=[{path: none.txt}]"],
        "none.txt",
        "no such file",
        "Check the path",
    )
    fails(["run", str(RECIPE), "--set", "evaluate.text_sources=[{path: none.txt}]"], "none.txt", "no such file")
    assert not Path("runs/tiny/tokenizer").exists()  # what the last stage needs is looked for before the first begins


def test_an_empty_corpus_is_named(fails: Fails, tiny_run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blank.txt").write_text("\n \n\n")
    (tmp_path / "empty.jsonl").touch()
    run = tiny_run.directory
    for name in ("empty.txt", "blank.txt"):
        source = ["--set", f"sources=[{{path: {name}}}]"]
        fails(["tokenizer", "--output", f"t-{name}", *source], "text", "duihua data check")
        fails(["pretrain", "--output", f"p-{name}", "--input", f"{run}/tokenizer", *source], "text", "data check")
    source = ["--set", "sources=[{path: empty.jsonl, kind: conversations}]"]
    fails(["sft", "--output", "s", "--input", f"{run}/pretrain", *source], "empty.jsonl", "data check")


def test_a_wrong_column_is_named_with_the_columns_that_there_are(fails: Fails, tiny_run: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"body": f"text number {number}", "title": "t"}) for number in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "rows.csv").write_text("title,body\nt,some text\n")
    for file in ("rows.jsonl", "rows.csv"):
        wrong = ["--set", f"sources=[{{path: {file}, columns: {{text: bodi}}}}]"]
        fails(["tokenizer", "--output", "made", *wrong], file, "bodi", "body", "title")
    wrong = ["--set", "sources=[{path: rows.jsonl, kind: conversations, columns: {messages: talk}}]"]
    fails(["sft", "--output", "s", "--input", f"{tiny_run.directory}/pretrain", *wrong], "rows.jsonl", "talk", "body")
    right = ["--set", "sources=[{path: rows.jsonl, columns: {text: body}}]", "--set", "vocabulary_size=264"]
    assert main(["tokenizer", "--output", "made", *right]) == 0  # control; and in the folder of the refused one


def test_a_refused_stage_is_corrected_in_its_folder_and_nothing_is_called_stale(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"body": "Some text. 一些文字。" * 40}))
    run = ["run", str(RECIPE), "--output", "run", "--until", "tokenizer", "--set", "tokenizer.vocabulary_size=264"]
    source = "tokenizer.sources=[{{path: rows.jsonl, columns: {{text: {column}}}}}]"
    fails([*run, "--set", source.format(column="bodi")], "bodi")
    assert main([*run, "--set", source.format(column="body")]) == 0
    assert not Path("run/old").exists()
    assert main([*run, "--set", "tokenizer.heldout_megabytes=0.1"]) == 0  # control: what was made is moved aside
    assert Path("run/old/tokenizer-1/tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("old", "new", "nearest"),
    [
        ("      steps: 80", "      stepz: 80", "steps"),
        ("seed: 1", "sead: 1", "seed"),
        ("  - pretrain:", "  - pretrian:", "pretrain"),
        ("trainer: {log_every: 1,", "trainer: {log_evry: 1,", "log_every"),
        ("matrix_learning_rate:", "matrix_learning_rat:", "matrix_learning_rate"),
        ("{name: tiny-text}, ", "{nome: tiny-text}, ", "name"),
        ("{name: tiny-preferences}", "{name: tiny-preference}", "tiny-preferences"),
    ],
)
def test_an_unknown_recipe_key_gets_the_nearest_one(
    fails: Fails, tmp_path: Path, old: str, new: str, nearest: str
) -> None:
    text = RECIPE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new), encoding="utf-8")
    said = fails(["run", "mine.yaml", "--until", "reward"])
    assert f"The nearest known name is '{nearest}'" in said or f"Did you mean {nearest}" in said
    if "tiny-preference" not in new:  # the name of a source is no key
        line = 1 + text[: text.index(old)].count("\n")
        assert f"mine.yaml:{line}" in said
    assert not (tmp_path / "runs" / "tiny" / "tokenizer").exists()  # all is read before anything is run


def test_an_unknown_setting_or_word_gets_the_nearest_one(fails: Fails) -> None:
    fails(["run", str(RECIPE), "--set", "pretrain.stepz=3"], "pretrain.stepz", "steps")
    fails(["run", str(RECIPE), "--set", "pretrian.steps=3"], "pretrian", "pretrain")
    fails(["run", str(RECIPE), "--set", "pretrain.steps=many"], "pretrain.steps", "many")
    fails(["run", str(RECIPE), "--until", "sfd"], "sfd", "sft")
    fails(["chatt"], "chatt", "chat")


def test_a_vocabulary_larger_than_the_data_allows_is_told_the_size_that_it_allows(fails: Fails) -> None:
    run = ["run", str(RECIPE), "--output", "run", "--until", "tokenizer", "--set"]
    said = fails([*run, "tokenizer.vocabulary_size=50000"], "50000", "Choose")
    allowed = said.split("Choose ")[1].split(" ")[0]
    assert main([*run, f"tokenizer.vocabulary_size={allowed}"]) == 0
    fails([*run, f"tokenizer.vocabulary_size={int(allowed) + 1}"], allowed)
    fails([*run, "tokenizer.vocabulary_size=100"], "256 bytes", "Choose at least")


# -- disk ---------------------------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


def test_no_disk_space_stops_a_stage_and_keeps_what_there_is(
    fails: Fails, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = ["run", str(RECIPE), "--set", "threads=1", "--output", str(copied)]
    again += ["--until", "sft", "--set", "sft.steps=2"]
    kept = saved(copied / "tokenizer", copied / "pretrain", copied / "reward", copied / "ppo")
    before = [digest for path, digest in saved(copied / "sft").items()]
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 0))
        fails(again, "0 MiB are free", "Free some space")
    assert saved(copied / "tokenizer", copied / "pretrain", copied / "reward", copied / "ppo") == kept
    assert list(saved(copied / "old" / "sft-1").values()) == before
    assert main(again) == 0  # with space, the same command goes on
    assert (copied / "sft" / "model.safetensors").is_file()
    assert saved(copied / "tokenizer", copied / "pretrain", copied / "reward", copied / "ppo") == kept


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; where one may not mount, the test is left out (the one above needs no rights)."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("needs the right to mount")
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full_is_the_same_fault_and_the_run_goes_on_when_it_is_not(
    fails: Fails, small_disk: Path
) -> None:
    run = ["run", str(RECIPE), "--set", "threads=1", "--set", "pretrain.steps=4", "--until", "pretrain"]
    run += ["--output", str(small_disk / "run")]
    fails(run, "Free some space or choose another folder")

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)

    resize("1m")
    fails(run, "Free some space or choose another folder")
    tokenizer = saved(small_disk / "run" / "tokenizer")
    assert tokenizer
    resize("64m")
    assert main(run) == 0
    assert saved(small_disk / "run" / "tokenizer") == tokenizer
    assert (small_disk / "run" / "pretrain" / "model.safetensors").is_file()


# -- models -------------------------------------------------------------------------------------------------------------


def test_a_bundle_of_another_version_is_refused_by_every_command(fails: Fails, bundle: Path, tmp_path: Path) -> None:
    config = json.loads((bundle / "config.json").read_bytes())
    config["duihua"] |= {"format": 99, "version": "9.9.9"}
    (bundle / "config.json").write_text(json.dumps(config))
    before = saved(bundle)
    for argv in every_reader(bundle, tmp_path):
        fails(argv, "99", "9.9.9", "Install the duihua that wrote it")
    assert saved(bundle) == before


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "missing", "other shape"])
def test_a_broken_safetensors_file_is_refused_by_every_command(
    fails: Fails, bundle: Path, tmp_path: Path, tiny_run: Any, damage: str
) -> None:
    file = bundle / "model.safetensors"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "other shape":
        config = json.loads((bundle / "config.json").read_bytes())
        (bundle / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))
    else:
        file.write_bytes({"cut": whole[:-100], "empty": b"", "garbage": b"\xff" * 1000}[damage])
    before = saved(bundle)
    for argv in every_reader(bundle, tmp_path):
        fails(argv, str(bundle), "config.json expects" if damage == "other shape" else "model.safetensors")
    assert saved(bundle) == before


def test_a_finished_run_with_a_cut_file_heals_itself(copied: Path, tiny_run: Any) -> None:
    """Nobody has to know which file is broken: the same command makes it anew, to the last byte."""
    file = copied / "sft" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert main(["run", str(RECIPE), "--set", "threads=1", "--output", str(copied)]) == 0
    assert tiny_run.road.bundles(copied) == tiny_run.road.bundles(tiny_run.directory)


def test_a_reward_model_is_no_chat_model(fails: Fails, tiny_run: Any) -> None:
    fails(["chat", str(tiny_run.directory / "reward"), "--message", "Hello"], "reward model", "Use a policy")
    fails(["chat", str(tiny_run.directory / "tokenizer"), "--message", "Hello"], "config.json")


def test_a_context_longer_than_the_models_is_refused(fails: Fails, tiny_run: Any) -> None:
    run = tiny_run.directory
    chat = ["--set", "sources=[{name: tiny-chat}]", "--threads", "1"]
    fails(
        ["sft", "--output", "s", "--input", f"{run}/pretrain", *chat, "--set", "length=4096"],
        "sft.length",
        "4096",
        "Choose 128 or less",
    )
    inputs = ["--input", f"policy={run}/sft", "--input", f"reward={run}/reward"]
    fails(
        ["ppo", "--output", "p", *inputs, *chat, "--set", "prompt_tokens=100", "--set", "reply_tokens=100"],
        "ppo.prompt_tokens",
        "128",
        "Lower prompt_tokens or reply_tokens",
    )
    fails(
        ["chat", f"{run}/ppo", "--message", "很长的话" * 200],
        "the model's context is 128",
        "Shorten them",
    )


# -- serving ------------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_said_at_once(fails: Fails, tiny_run: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        serve = ["serve", str(tiny_run.directory), "--port", str(port), "--store", str(tmp_path / "c.sqlite3")]
        fails(serve, f"127.0.0.1:{port}", "another program uses this port", "--port")


def test_under_json_the_fault_is_an_object_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "none.yaml", "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["error"] == {
        "problem": "no such file",
        "where": "none.yaml",
        "remedy": "Check the path",
    }
    assert len(said.err.splitlines()) == 1


def test_a_run_that_is_refused_leaves_a_finished_one_as_it_was(fails: Fails, copied: Path) -> None:
    before = saved(copied)
    run = ["run", str(RECIPE), "--output", str(copied), "--set"]
    fails([*run, "ppo.itterations=2"], "iterations")
    fails([*run, "evaluate.sources=[{path: none.jsonl, kind: conversations}]"], "none.jsonl")
    fails([*run, "threads=-1"], "threads")
    assert saved(copied) == before


def test_the_real_command_prints_no_traceback(tiny_run: Any) -> None:
    """In a process of its own, with nothing of a test around it."""
    ended = tiny_run.road.run(["run", "none.yaml"])
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "duihua: none.yaml: no such file. Check the path.\n"
