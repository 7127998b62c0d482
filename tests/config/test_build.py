from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from duihua.config import build, field_help, load_yaml, override, to_mapping
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.stages import STAGES
from duihua.stages.configs.bag_of_words import BagOfWordsConfig


@dataclass(frozen=True)
class Part:
    name: str = ""
    """What it is called."""
    kind: Literal["a", "b"] = "a"
    """Which of the two."""

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ConfigError("is bad", where="name", remedy="Choose another")


@dataclass(frozen=True)
class Rates:
    learning_rate: float = 0.1
    """How fast
    it learns."""


@dataclass(frozen=True)
class Whole:
    needed: int
    """Must be given."""
    parts: tuple[Part, ...] = ()
    """Parts."""
    rates: Rates = field(default_factory=Rates)
    """Rates."""
    spare: Rates | None = None
    """None or rates."""
    pair: tuple[float, float] = (0.9, 0.95)
    """Two numbers."""
    folder: Path | None = None
    """A folder."""
    flag: bool = False
    """Yes or no."""
    named: dict[str, Part] = field(default_factory=dict)
    """Parts by name."""
    about: str | dict[str, str] = ""
    """What it is for."""


YAML = """\
whole:
  needed: 3
  rates: {learning_rate: 1e-3}
  parts:
    - name: one
    - nmae: two
"""


def message(mapping: object, where: str = "whole") -> str:
    with pytest.raises(ConfigError) as caught:
        build(Whole, mapping, where)
    return str(caught.value)


def test_a_mapping_becomes_the_frozen_dataclass_with_defaults_for_the_rest() -> None:
    built = build(Whole, {"needed": 3, "parts": [{"name": "x"}], "pair": [1, 2], "folder": "/a", "spare": None})
    assert built == Whole(needed=3, parts=(Part("x"),), pair=(1.0, 2.0), folder=Path("/a"))


@dataclass(frozen=True)
class Speeds:
    kind: Literal["muon", "adamw"] = "muon"
    rate: float = 0.02
    inner: Rates = field(default_factory=lambda: Rates(0.5))


@dataclass(frozen=True)
class Stage:
    speeds: Speeds = field(default_factory=lambda: Speeds("adamw", 1e-4))
    spare: Speeds | None = None


def test_a_part_of_which_some_fields_are_given_keeps_the_fields_own_defaults() -> None:
    """Not those of the part's class, which another stage may have; of a field whose default is no such part, the class's."""
    assert build(Stage, {"speeds": {"rate": 0.5}}).speeds == Speeds("adamw", 0.5)
    assert build(Stage, {"speeds": {}}) == Stage()
    assert build(Stage, {"speeds": {"kind": "muon"}}).speeds == Speeds("muon", 1e-4)
    assert build(Stage, {"speeds": {"inner": {}}}).speeds.inner == Rates(0.5)
    assert build(Stage, {"spare": {"rate": 0.5}}).spare == Speeds("muon", 0.5)
    assert build(Stage, {"speeds": {"rate": 0.5}}).speeds != Speeds(rate=0.5)


def test_another_source_keeps_nothing_of_the_default_one() -> None:
    default = BagOfWordsConfig().source
    assert default.name and default != SourceConfig(path="a.jsonl")
    assert build(BagOfWordsConfig, {"source": {"path": "a.jsonl"}}).source == SourceConfig(path="a.jsonl")


def test_every_stage_keeps_its_optimizer_when_only_a_rate_is_given() -> None:
    for stage in STAGES.values():
        whole = stage.config_class()()
        if hasattr(whole, "optimizer"):
            given = build(stage.config_class(), {"optimizer": {"learning_rate": 0.125}})
            assert given.optimizer == replace(whole.optimizer, learning_rate=0.125), stage.name


def test_to_mapping_is_undone_by_build() -> None:
    whole = Whole(1, (Part("x", "b"),), Rates(2.0), Rates(3.0), (1.0, 2.0), Path("/a"), True, {"k": Part("y")})
    assert build(Whole, to_mapping(whole)) == whole
    assert to_mapping(whole)["parts"] == [{"name": "x", "kind": "b"}]


def test_unknown_key_names_file_line_path_and_nearest(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(YAML, encoding="utf-8")
    mapping = load_yaml(path)["whole"]
    line = message(mapping)
    assert line == f"{path}:6: whole.parts[1].nmae: unknown key 'nmae'. The nearest known name is 'name'."
    # the control: the same mapping with the key spelt well is taken
    assert build(Whole, override(mapping, ["parts=[]"]), "whole").rates == Rates(0.001)


@pytest.mark.parametrize("key", ["rates.learning_rat", "spare.learning_rat", "named.x.knid", "parts.0.nam"])
def test_unknown_key_is_found_at_every_depth(key: str) -> None:
    mapping = override({"needed": 1, "parts": [{}], "named": {"x": {}}}, [f"{key}=1"])
    assert f"--set {key}=1" in message(mapping)
    assert "unknown key" in message(mapping)


@pytest.mark.parametrize(
    "setting", ["needed=true", "needed='3'", "needed=3.5", "flag=1", "rates.learning_rate=true", "pair=[1]", "folder=3"]
)
def test_a_value_of_the_wrong_type_is_refused_and_never_converted(setting: str) -> None:
    line = message(override({"needed": 1}, [setting]))
    assert setting.partition("=")[0] in line
    assert any(text in line for text in ("found", "should", "is missing"))


def test_a_wrong_value_says_what_the_field_means() -> None:
    assert "How fast it learns" in message({"needed": 1, "rates": {"learning_rate": "fast"}})


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"en": "every stage", "for a few": None}, r"about\.for a few: input should be a valid string, found null"),
        (3, r"about: input should be a valid string, found 3"),
        (["x"], r"about: input should be a valid"),
    ],
)
def test_of_what_may_be_one_thing_or_another_the_fault_inside_is_told(about: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(Whole, {"needed": 1, "about": about})


@dataclass(frozen=True)
class Strict:
    some: int = 0

    def __post_init__(self) -> None:
        if self.some > 9:
            raise ValueError("is too large")


def test_a_fault_of_the_whole_is_told_too() -> None:
    with pytest.raises(ConfigError, match="is too large"):
        build(Strict, {"some": 10})


def test_a_missing_field_is_named() -> None:
    assert "whole.needed: is missing" in message({})


def test_a_check_of_the_dataclass_itself_gets_the_whole_path() -> None:
    assert message({"needed": 1, "parts": [{}, {"name": "bad"}]}) == "whole.parts[1].name: is bad. Choose another."


def test_a_choice_lists_the_choices() -> None:
    line = message({"needed": 1, "parts": [{"kind": "c"}]})
    assert "whole.parts[0].kind" in line
    assert "'a' or 'b'" in line


@pytest.mark.parametrize("value", [3, "text", [1]])
def test_something_else_than_a_mapping_is_refused(value: object) -> None:
    assert "expected a mapping" in message(value)


def test_field_help_holds_the_docstrings_under_the_fields() -> None:
    assert field_help(Rates) == {"learning_rate": "How fast\nit learns."}
    assert set(field_help(Whole)) == set(Whole.__dataclass_fields__)
