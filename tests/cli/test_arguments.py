"""A wrong flag is one line with the nearest one, whichever verb it was meant for."""

from __future__ import annotations

import argparse
import json

import pytest

from duihua.cli.arguments import Parser
from duihua.cli.main import main
from duihua.errors import ConfigError


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["chat", "bundle", "--temprature", "1"], ["--temprature", "'--temperature'", "duihua chat --help"]),
        (["chat", "bundle", "--temperature", "warm"], ["--temperature", "'warm'", "duihua chat --help"]),
        (["chat"], ["BUNDLE", "duihua chat --help"]),
        (["run", "--outptu", "x", "recipe.yaml"], ["--outptu", "'--output'"]),
        (["run"], ["RECIPE"]),
        (["data"], ["list|get|show|check"]),
        (["data", "chek", "x"], ["'chek'", "'check'"]),
        (["data", "check", "x", "--kindd", "text"], ["--kindd", "'--kind'"]),
        (["data", "check", "x", "--kind", "talk"], ["--kind", "'talk'", "'conversations'"]),
        (["inspect", "bundle", "--batchs", "2"], ["--batchs", "'--batch'"]),
        (["export", "bundle"], ["--to"]),
        (["merge", "base"], ["--adapter"]),
        (["import"], ["DIR"]),
        (["doctor", "me"], ["me: is one word too many"]),
        (["sft", "--threads", "many"], ["--threads", "'many'"]),
        (["classify", "model", "--predict", "-", "--formm", "txt"], ["--formm", "'--form'"]),
    ],
)
def test_a_wrong_flag_is_one_line(argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("duihua: ")
    for word in words:
        assert word in said.err
    assert main([*argv, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["problem"]


def test_argparse_alone_would_print_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        argparse.ArgumentParser(prog="x").parse_args(["--no"])
    assert len(capsys.readouterr().err.splitlines()) > 1
    with pytest.raises(ConfigError):
        Parser(prog="x").parse_args(["--no"])


def test_help_still_leaves_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    assert "usage: duihua run" in capsys.readouterr().out
