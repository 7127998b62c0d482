from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import tyro

from duihua.config import parse
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    """How fast."""


@dataclass(frozen=True)
class Settings:
    """Some settings."""

    steps: int = 10
    """How many updates there are."""
    inner: Inner = field(default_factory=Inner)
    """Inside."""
    quick: bool = False
    """Whether to hurry."""


def test_flags_go_over_the_default() -> None:
    default = Settings(steps=3)
    assert parse(Settings, ["--inner.rate", "2", "--quick"], default=default) == Settings(3, Inner(2.0), True)


def test_help_holds_the_field_docstrings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        parse(Settings, ["--help"], prog="duihua test")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for text in ("duihua test", "How many updates there are.", "--inner.rate", "How fast."):
        assert text in shown


@dataclass(frozen=True)
class Wide:
    """A docstring of two lines."""

    words: int = 1
    """The first half of a sentence,
    and its second half."""
    inner: tuple[Settings, ...] = (Settings(),)
    """Inside."""


def test_a_docstring_of_several_lines_is_one_paragraph_of_the_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    before = dict(Wide.__annotations__), dict(Settings.__annotations__)
    sentence = "The first half of a sentence, and its second half."
    for show, joined in ((parse, True), (lambda cls, argv: tyro.cli(cls, args=argv), False)):
        with pytest.raises(SystemExit):
            show(Wide, ["--help"])
        assert (sentence in capsys.readouterr().out) == joined  # the control: tyro alone breaks the line
    assert (dict(Wide.__annotations__), dict(Settings.__annotations__)) == before


@pytest.mark.parametrize(
    ("flags", "texts"),
    [
        (["--stps", "3"], ["--stps: unknown flag", "'--steps'", "`duihua test --help`"]),
        (["--inner.rat", "3"], ["--inner.rat: unknown flag", "'--inner.rate'"]),
        (["stray"], ["stray: unexpected value"]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--steps"], ["--steps"]),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Settings, flags, prog="duihua test")
    line = str(caught.value)
    assert "\n" not in line
    assert not set("│╭╰─") & set(line)
    for text in texts:
        assert text in line
    assert capsys.readouterr() == ("", "")


@dataclass(frozen=True)
class Reading:
    more_sources: tuple[SourceConfig, ...] = (SourceConfig(name="tiny-chat"), SourceConfig(name="dpo-en", limit=5))
    """Sources."""
    rate: float = 0.5
    """How fast."""


@pytest.mark.parametrize("flags", [["--more-sources.1.path", "a.jsonl"], ["--more-sources.1.path=a.jsonl"]])
def test_a_path_by_flag_takes_the_place_of_the_default_sources_name(flags: list[str]) -> None:
    found = parse(Reading, flags, default=Reading())
    assert found.more_sources == (SourceConfig(name="tiny-chat"), SourceConfig(path="a.jsonl", limit=5))
    own = Reading((SourceConfig(path="a.jsonl", kind="preferences"),))
    assert parse(Reading, ["--more-sources.0.path", "b"], default=own).more_sources[0].kind == "preferences"
    assert parse(Reading, ["--more-sources.0.name", "c"], default=own).more_sources[0].path == ""
    both = [
        "--more-sources.0.name",
        "c",
        "--more-sources.0.path",
        "d",
    ]  # two by flags are both meant, and refused later
    assert parse(Reading, both, default=own).more_sources[0] == SourceConfig(name="c", path="d", kind="preferences")
    assert parse(Reading, ["--rate", "1"], default=own).more_sources == own.more_sources
