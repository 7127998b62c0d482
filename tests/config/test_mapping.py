from __future__ import annotations

import math
from pathlib import Path

import pytest

from duihua.config import Located, load_yaml, nearest, override
from duihua.config.mapping import parse_yaml
from duihua.errors import ConfigError


def refused(text: str, tmp_path: Path) -> str:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1.5E+2", 150.0), (".5", 0.5), ("3.", 3.0), ("12", 12), ("1_000", 1000), ("-4", -4),
        ("0x10", 16), ("010", 10), ("true", True), ("null", None), ("~", None), ("", None),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("2026-01-02", "2026-01-02"), ("1:30", "1:30"), ("'5'", "5"),
        ("1e", "1e"), ("e3", "e3"), ("1.2.3", "1.2.3"), (".inf", math.inf),
    ],
)  # fmt: skip
def test_scalars_are_what_people_expect_of_yaml(text: str, value: object) -> None:
    read = parse_yaml(text, "text")
    assert read == value
    assert type(read) is type(value)


def test_keys_remember_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb:\n  c: 2\n", encoding="utf-8")
    mapping = load_yaml(path)
    assert mapping == {"a": 1, "b": {"c": 2}}
    assert mapping["b"].places == {"c": f"{path}:3"}


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_yaml(path) == {"a": 1}


def test_bad_files_are_refused_with_their_place(tmp_path: Path) -> None:
    assert "a.yaml:2: the key 'a' stands twice" in refused("a: 1\na: 2\n", tmp_path)
    assert "a.yaml:2:" in refused("a: [1\nb: 2\n", tmp_path)
    assert "does not hold a mapping" in refused("- 1\n", tmp_path)
    assert "the key 3 is not a text" in refused("3: 1\n", tmp_path)
    assert "broken YAML" in refused("a: !!python/object/apply:os.getcwd []\n", tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="folder"):
        load_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 3"):
        load_yaml(tmp_path / "latin.yaml")


def test_override_puts_values_in_and_leaves_the_original_alone() -> None:
    original = Located({"a": {"b": 1}, "list": [{"c": 1}, {"c": 2}]})
    changed = override(original, ["a.b=2", "a.new.deep=[1, x]", "list.1.c=null", "text=a=b"])
    assert changed == {"a": {"b": 2, "new": {"deep": [1, "x"]}}, "list": [{"c": 1}, {"c": None}], "text": "a=b"}
    assert original == {"a": {"b": 1}, "list": [{"c": 1}, {"c": 2}]}


@pytest.mark.parametrize("setting", ["a", "=1", "a..b=1", "list.2=1", "list.x=1", "a.b.c=1", "a=[1"])
def test_an_impossible_override_is_refused_with_its_text(setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override({"a": {"b": 1}, "list": [1, 2]}, [setting])
    assert f"--set {setting}" in str(caught.value)


def test_nearest_name_is_found_and_nonsense_has_none() -> None:
    known = ["learning_rate", "steps", "width"]
    assert nearest("lerning-rate", known) == "learning_rate"
    assert nearest("Steps", known) == "steps"
    assert nearest("qqqq", known) is None


def test_the_number_0_begins_a_list_that_is_not_there() -> None:
    found = override({}, ["preferences.0.path=a.jsonl", "preferences.0.kind=preferences"])
    assert found == {"preferences": [{"path": "a.jsonl", "kind": "preferences"}]}
    with pytest.raises(ConfigError, match="the list has 1 item and no '1'"):
        override(found, ["preferences.1.path=b.jsonl"])
