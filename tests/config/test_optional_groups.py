"""Groups of settings that are off by default: by flag, by `--set`, in YAML, and what help says of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from duihua.config import build, override, parse
from duihua.config.flags import optional_groups
from duihua.errors import ConfigError


@dataclass(frozen=True)
class Group:
    """A group."""

    rank: int = 8
    """Rank."""
    names: tuple[str, ...] = ("a", "b")
    """Names."""


@dataclass(frozen=True)
class Needy:
    """A group with a setting that has no default."""

    kind: str
    """Kind."""


@dataclass(frozen=True)
class Settings:
    """Settings."""

    steps: int = 3
    """Steps."""
    group: Group | None = None
    """Off unless asked for."""
    needy: Needy | None = None
    """Off unless written out."""
    always: Group = field(default_factory=Group)
    """Always there."""
    pair: tuple[int, int] | None = None
    """No group."""


def test_the_bare_name_or_any_flag_of_it_turns_a_group_on() -> None:
    assert parse(Settings, ["--steps", "4"], Settings()).group is None
    assert parse(Settings, ["--group"], Settings()).group == Group()
    assert parse(Settings, ["--group.rank", "2"], Settings()).group == Group(rank=2)
    assert parse(Settings, ["--group", "--group.rank=2", "--steps", "5"], Settings()) == Settings(5, Group(2))
    assert parse(Settings, ["--group.names", "c"], Settings()).group == Group(names=("c",))


def test_flags_go_over_what_a_file_says() -> None:
    given = build(Settings, override({"group": {"rank": 4}}, ["group.names=[c]"]), "x")
    assert given.group == Group(4, ("c",))
    assert parse(Settings, ["--group"], given).group == given.group
    assert parse(Settings, ["--group.rank", "2"], given).group == Group(2, ("c",))
    assert build(Settings, override({"group": {}}, ["group=null"]), "x").group is None


def test_only_groups_that_can_be_made_from_nothing_are_switched_on() -> None:
    assert optional_groups(Settings) == {"group": Group}
    with pytest.raises(ConfigError, match="unknown flag"):
        parse(Settings, ["--needy"], Settings())


def test_help_shows_no_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Settings, ["--help"], Settings(group=Group()))
    shown = capsys.readouterr().out
    assert "--group.rank" in shown
    assert "group:" not in shown


def test_a_mistyped_flag_of_a_group_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"nearest known name is '--group\.rank'"):
        parse(Settings, ["--group.rnak", "2"], Settings(), prog="duihua x")
