"""The known sources of parallel texts, on small files of the same form, and on the real ones where they are."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from duihua.data.check import check
from duihua.data.parallel import multi30k
from duihua.data.parallel.base import PARTS, Part, part_of
from duihua.data.parallel.everyday import EverydayChinese, EverydayFrench
from duihua.data.parallel.groups import side_keys
from duihua.data.parallel.multi30k import Multi30kFrench, Multi30kGerman
from duihua.data.parallel.tatoeba import Tatoeba
from duihua.data.records import LeftOut
from duihua.errors import DataError

REAL = Path(os.environ.get("DUIHUA_DATA", "") or "/nowhere")
needs_multi30k = pytest.mark.skipif(
    not (REAL / "multi30k").is_dir(), reason="DUIHUA_DATA names no folder with multi30k"
)
needs_tatoeba = pytest.mark.skipif(not (REAL / "tatoeba").is_dir(), reason="DUIHUA_DATA names no folder with tatoeba")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder in Multi30k's form; line 2 of the French training part is empty."""
    for stem, count in (("train", 5), ("val", 2), ("test_2016_flickr", 3)):
        for language in ("fr", "en"):
            lines = [
                "" if (stem, language, i) == ("train", "fr", 1) else f"{language} {stem} {i}" for i in range(count)
            ]
            (tmp_path / f"{stem}.{language}.gz").write_bytes(gzip.compress("".join(f"{x}\n" for x in lines).encode()))
    return tmp_path


def test_multi30k_reads_its_three_parts_line_by_line(pictures: Path) -> None:
    source = Multi30kFrench(pictures, pictures)
    assert [pair.texts for pair in source.part("validation")] == [("fr val 0", "en val 0"), ("fr val 1", "en val 1")]
    assert [pair.texts[0] for pair in source.part("train")] == [f"fr train {i}" for i in (0, 2, 3, 4)]
    assert source.left_out.first_place["empty side"].endswith("train.fr.gz:2")
    assert len(list(source.records("heldout"))) == 5


def test_what_is_left_out_of_every_part_is_counted_where_it_is_asked_for(pictures: Path, tmp_path: Path) -> None:
    """`read` counts into what it was given, of all three parts; and into nothing else."""
    (pictures / "val.en.gz").write_bytes(gzip.compress(b"\none\n"))
    source, counted = Multi30kFrench(pictures, pictures), LeftOut()
    assert len(list(source.read(counted))) == 4 + 1 + 3
    assert counted.counts == {"empty side": 2} and counted.first_place["empty side"].endswith("train.fr.gz:2")
    assert source.left_out.total == 0
    assert len(list(source.records("heldout"))) == 4
    assert source.left_out.total == 1  # validation's, not the test's alone
    assert check(source, duplicates=False).left_out.total == 2
    path = tmp_path / "cmn.txt"
    path.write_text("Hi.\t嗨。\tx\nGo.\t\tx\nRun.\t跑。\tx\n", "utf-8")
    chinese, counted = Tatoeba(tmp_path, path), LeftOut()
    assert len(list(chinese.read(counted))) == 2
    assert counted.counts == {"empty side": 1}  # one file in three parts: its line counts once
    assert check(chinese, duplicates=False).left_out.total == 1


def test_multi30k_refuses_files_of_unequal_length(pictures: Path) -> None:
    (pictures / "val.en.gz").write_bytes(gzip.compress(b"one\n"))
    with pytest.raises(DataError, match=r"2 lines beside 1 in val\.en\.gz"):
        list(Multi30kFrench(pictures, pictures).part("validation"))


def test_multi30k_that_is_not_there_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUIHUA_DATA", raising=False)
    with pytest.raises(DataError, match=r"duihua data get multi30k-de-en"):
        Multi30kGerman(tmp_path)


def test_other_bytes_are_not_taken_for_multi30k(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SHA-256 is"):
        Multi30kFrench.take(pictures, tmp_path / "home")


def test_a_download_is_checked_and_kept(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi30k, "HOME", pictures.as_uri() + "/")
    with pytest.raises(DataError, match="SHA-256 is"):
        Multi30kFrench.download(tmp_path / "home")
    digests = {name: multi30k.sha256_file(pictures / name) for name in Multi30kFrench.files()}
    monkeypatch.setattr(multi30k, "SHA256", digests)
    Multi30kFrench.download(tmp_path / "home")
    assert len(list(Multi30kFrench(tmp_path / "home").part("test"))) == 3
    monkeypatch.setattr(multi30k, "HOME", (tmp_path / "nowhere").as_uri() + "/")
    Multi30kFrench.download(tmp_path / "home")  # nothing is missing, so nothing is fetched
    with pytest.raises(DataError, match="cannot be fetched"):
        Multi30kFrench.download(tmp_path / "other")


def test_tatoeba_reads_its_form_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    rows = [
        "Hi.\t嗨。\tCC-BY #1 (a)", "Hi!\t嗨！\tCC-BY #2 (b)", "Hi.\t你好。\tCC-BY #3 (c)", "Go.\t\tCC-BY", "Run.\t跑。",
        "Wait.\t等。\tCC-BY #4 (d)",
    ]  # fmt: skip
    path = tmp_path / "cmn.txt"
    path.write_bytes(("\ufeff" + "\n".join(rows)).encode() + b"\nBad\t\xff\tx\n")
    source = Tatoeba(tmp_path, path)
    pairs = [pair for part in PARTS for pair in part_of(source, part)]
    assert {pair.texts for pair in pairs} == {("嗨。", "Hi."), ("你好。", "Hi."), ("等。", "Wait.")}
    assert {pair.attribution for pair in pairs} == {"CC-BY #1 (a)", "CC-BY #3 (c)", "CC-BY #4 (d)"}
    assert source.left_out.to_mapping()["total"] == 4


def test_the_everyday_pairs_hold_the_sentences_that_people_try_first() -> None:
    french = {pair.texts for pair in EverydayFrench(Path()).part("train")}
    assert ("Je suis étudiant", "I am a student") in french
    assert all(first.strip() and second.strip() for first, second in french)
    assert len(french) == EverydayFrench.counts.train
    chinese = {pair.texts for pair in EverydayChinese(Path()).part("train")}
    assert ("我爱你", "I love you") in chinese
    assert len(chinese) == EverydayChinese.counts.train


@needs_multi30k
@pytest.mark.parametrize("kind", [Multi30kFrench, Multi30kGerman])
def test_the_real_multi30k_has_its_published_counts_and_hashes(kind: type[Multi30kFrench], tmp_path: Path) -> None:
    source = kind(tmp_path, REAL / "multi30k")
    assert [sum(1 for _ in source.part(part)) for part in PARTS] == [29_000, 1_014, 1_000]
    assert tuple(source.counts) == (29_000, 2_014)
    kind.take(REAL / "multi30k", tmp_path)  # checks each SHA-256
    assert source.left_out.total == 0


@needs_tatoeba
def test_the_real_tatoeba_leaks_no_sentence_into_its_test(tmp_path: Path) -> None:
    source = Tatoeba(tmp_path, REAL / "tatoeba" / "cmn-eng.txt.gz")
    found: dict[Part, list[tuple[bytes, bytes]]] = {
        part: [side_keys(pair.texts) for pair in source.part(part)] for part in PARTS
    }
    assert len(found["train"]) == source.counts.train
    assert len(found["validation"]) + len(found["test"]) == source.counts.heldout
    for side in (0, 1):
        trained = {keys[side] for keys in found["train"]}
        assert trained.isdisjoint(keys[side] for part in ("validation", "test") for keys in found[part])  # type: ignore[index]
