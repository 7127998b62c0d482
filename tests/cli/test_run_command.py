from __future__ import annotations

import json
from pathlib import Path

import pytest

from duihua.cli.main import main

RECIPE = """\
recipe: little
seed: 4
threads: 1
stages:
  - tokenizer: {sources: [{name: tiny-text}], vocabulary_size: 300, megabytes: 0.1}
  - pretrain:
      sources: [{name: tiny-text}]
      shape: {width: 16, layers: 1, heads: 1, key_value_heads: 1, head_width: 16, feed_forward_width: 16}
      length: 32
      rows: 2
      steps: 2
"""


def test_a_recipe_runs_is_skipped_and_writes_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("little.yaml").write_text(RECIPE, encoding="utf-8")
    command = ["run", "little.yaml", "--data", "data", "--json"]
    assert main([*command, "--until", "tokenizer"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["run"], outcome["complete"]) == ("runs/little", False)
    assert main([*command, "--set", "pretrain.steps=3"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["stages"] == {"tokenizer": "skipped", "pretrain": "finished"}
    assert outcome["summary"]["pretrain"]["bits_per_byte"]["zh"] > 0
    assert outcome["summary"]["command"] == "duihua run little.yaml --data data --json --set pretrain.steps=3"
    assert Path("runs/little/report.html").stat().st_size > 10_000
    assert json.loads(Path("runs/little/run.json").read_text())["stages"][1]["config"]["steps"] == 3
    assert main([*command, "--set", "pretrain.steps=3"]) == 0
    assert set(json.loads(capsys.readouterr().out)["stages"].values()) == {"skipped"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yaml"], "none.yaml: no such file"),
        (["little.yaml", "--until", "sft"], "the recipe has no stage 'sft'"),
        (["little.yaml", "--set", "pretrain.step=3"], "The nearest known name is 'steps'"),
        (["little.yaml", "--device", "tpu"], "unknown device 'tpu'"),
        (["little.yaml", "--device", "cuda:99"], "--device cuda:99"),
        (["little.yaml", "--threads", "0.5"], "threads: input should be a valid integer"),
        (["little.yaml", "--set", "tokenizer.sources=[{name: tiny-txt}]"], "tiny-text"),
    ],
)
def test_a_wrong_call_is_one_line_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("little.yaml").write_text(RECIPE, encoding="utf-8")
    assert main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert not Path("runs/little/tokenizer").exists()
