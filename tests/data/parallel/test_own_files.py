"""A user's own parallel texts: the forms that are read, and what is said of what cannot be used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from duihua.data.check import SIDE_LEAK, check
from duihua.data.parallel.base import PARTS, facing, parse_languages, part_of, with_references
from duihua.data.records import Parallel
from duihua.data.source import ColumnsConfig, Source, SourceConfig, open_source
from duihua.errors import ConfigError, DataError

WORDS = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit"]


def lines(count: int) -> list[tuple[str, str]]:
    return [(f"{WORDS[i % 8]} numéro {i}", f"{WORDS[i % 8]} number {i}") for i in range(count)]


def opened(path: Path, **settings: Any) -> Source:
    return open_source(SourceConfig(path=str(path), languages="fr-en", **settings), Path("unused"))


def texts(source: Source) -> set[tuple[str, str]]:
    return {pair.texts for part in PARTS for pair in part_of(source, part)}


def test_jsonl_by_the_languages_names_by_usual_names_and_from_inside_one_column(tmp_path: Path) -> None:
    rows = lines(60)
    forms = [
        [{"fr": a, "en": b} for a, b in rows],
        [{"source": a, "target": b} for a, b in rows],
        [{"id": 1, "translation": {"en": b, "fr": a}} for a, b in rows],
    ]
    for number, form in enumerate(forms):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in form), "utf-8")
        source = opened(path)
        assert texts(source) == set(rows)
        assert source.language == "fr-en" and source.kind == "parallel"


def test_a_table_without_a_header_by_the_numbers_of_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("\ufeff" + "".join(f"{b}\t{a}\tby someone\n" for a, b in lines(40)), "utf-8")
    assert texts(opened(path, columns=ColumnsConfig(first="2", second="1"))) == set(lines(40))


def test_two_files_of_aligned_lines_packed_or_not(tmp_path: Path) -> None:
    first, second = tmp_path / "a.fr", tmp_path / "a.en.gz"
    first.write_text("".join(f"{a}\n" for a, _ in lines(50)), "utf-8")
    second.write_bytes(gzip.compress("".join(f"{b}\r\n" for _, b in lines(50)).encode()))
    assert texts(opened(first, aligned=str(second))) == set(lines(50))


@pytest.mark.parametrize("shorter", ["first", "second"])
def test_aligned_files_of_unequal_length_are_refused_with_the_line(tmp_path: Path, shorter: str) -> None:
    first, second = tmp_path / "a.fr", tmp_path / "a.en"
    first.write_text("un\ndeux\n" + ("" if shorter == "first" else "trois\n"), "utf-8")
    second.write_text("one\ntwo\n" + ("three\n" if shorter == "first" else ""), "utf-8")
    with pytest.raises(DataError, match=r"ends after 2 lines, and a\.(en|fr) goes on") as caught:
        texts(opened(first, aligned=str(second)))
    assert caught.value.where == f"{first if shorter == 'first' else second}:3"


def test_what_cannot_be_used_is_counted_with_its_line(tmp_path: Path) -> None:
    first, second = tmp_path / "a.fr", tmp_path / "a.en"
    first.write_bytes(b"un\n\ndeux\n" + b"\xff\n" + b"UN !\ntrois\n")
    second.write_text("one\nempty\n  \nbad\none\nthree\n", "utf-8")
    source = opened(first, aligned=str(second))
    assert texts(source) == {("un", "one"), ("trois", "three")}
    left_out = source.left_out
    assert dict(left_out.counts) == {
        "empty side": 2, "bytes that are not UTF-8": 1, "says the same as a pair before it": 1
    }  # fmt: skip
    assert left_out.first_place["empty side"] == f"{first}:2"
    assert left_out.first_place["bytes that are not UTF-8"] == f"{first}:4:1"
    assert left_out.first_place["says the same as a pair before it"] == f"{first}:5"


def test_parts_do_not_overlap_and_a_held_out_file_is_the_test(tmp_path: Path) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps({"fr": a, "en": b}) + "\n" for a, b in lines(400)), "utf-8")
    test.write_text('{"fr": "à part", "en": "apart"}\n', "utf-8")
    source = opened(train)
    counts = {part: len(list(part_of(source, part))) for part in PARTS}
    assert sum(counts.values()) == 400 and counts["test"] > 5 and counts["validation"] > 1
    assert len(list(source.records("heldout"))) == counts["test"] + counts["validation"]
    apart = opened(train, heldout=str(test))
    assert [pair.texts for pair in part_of(apart, "test")] == [("à part", "apart")]
    assert len(list(part_of(apart, "train"))) + len(list(part_of(apart, "validation"))) == 400


def test_a_limit_thins_training_alone(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"fr": a, "en": b}) + "\n" for a, b in lines(400)), "utf-8")
    whole, limited = opened(path), opened(path, limit=30)
    assert len(list(part_of(limited, "train"))) == 30
    assert list(part_of(limited, "test")) == list(part_of(whole, "test"))
    assert {p.texts for p in part_of(limited, "train")} < {p.texts for p in part_of(whole, "train")}


def test_the_checker_finds_no_leak_in_the_parts_and_one_in_a_careless_held_out_file(tmp_path: Path) -> None:
    path, careless = tmp_path / "pairs.jsonl", tmp_path / "careless.jsonl"
    path.write_text("".join(json.dumps({"fr": a, "en": b}) + "\n" for a, b in lines(300)), "utf-8")
    careless.write_text(json.dumps({"fr": "tout autre chose", "en": lines(5)[3][1]}) + "\n", "utf-8")
    assert check(opened(path), duplicates=False).problems[SIDE_LEAK] == 0
    report = check(opened(path), opened(careless), duplicates=False)
    assert report.problems[SIDE_LEAK] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "parallel"}, "which languages"),
        ({"languages": "french"}, "does not name two languages"),
        ({"languages": "en-en"}, "does not name two languages"),
        ({"languages": "fr-en", "kind": "text"}, "kind is text"),
        ({"languages": "fr-en", "aligned": "b.en", "heldout": "c.fr"}, "cannot have a held-out path"),
    ],
)
def test_what_does_not_say_enough_is_refused(tmp_path: Path, settings: Any, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"fr": "un", "en": "one"}\n', "utf-8")
    with pytest.raises(ConfigError, match=message):
        open_source(SourceConfig(path=str(path), **settings), tmp_path)


def test_a_wrong_column_is_one_clear_error_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"french": "un", "english": "one"}\n', "utf-8")
    with pytest.raises(DataError, match=r"the columns are: french, english"):
        texts(opened(path))
    assert texts(opened(path, columns=ColumnsConfig(first="french", second="english"))) == {("un", "one")}


def test_a_known_source_keeps_its_languages(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its own languages"):
        open_source(SourceConfig(name="everyday-fr-en", languages="en-fr"), tmp_path)


def test_a_pair_faces_either_way_and_no_other() -> None:
    pair = Parallel(("oui", "yes"), ("fr", "en"), "here")
    assert facing(pair, "fr", "en") == ("oui", "yes")
    assert facing(pair, "en", "fr") == ("yes", "oui")
    with pytest.raises(DataError, match=r"fr-en, and zh-en is asked for"):
        facing(pair, "zh", "en")
    assert parse_languages("zh-EN") == ("zh", "en")


def test_a_text_with_several_translations_is_asked_once() -> None:
    pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "1")]
    assert with_references(pairs) == [("a", ["1", "3"]), ("b", ["2"])]
