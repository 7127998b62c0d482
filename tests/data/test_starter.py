"""The starter sources read tiny archives of the real layout rightly; the real ones too, where they were fetched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from duihua.data.archives import find_archive, starter_archives
from duihua.data.home import data_directory
from duihua.data.records import (
    Conversation,
    Document,
    Preference,
    Record,
    first_user_message,
    is_held_out,
    normalised,
)
from duihua.data.source import KNOWN_SOURCES, Source, SourceConfig, open_source
from duihua.data.starter import chitchat, texts
from duihua.data.starter.base import StarterSource
from duihua.data.starter.greetings import SOURCES, collect, greetings
from duihua.data.starter.race import RaceText
from duihua.errors import ConfigError, DataError

STARTER = [name for name, (module, _) in KNOWN_SOURCES.items() if ".starter." in module]


def everything(source: Source) -> list[Record]:
    return [record for split in ("train", "heldout") for record in source.records(split)]  # type: ignore[arg-type]


def contents(record: Record) -> list[str]:
    assert isinstance(record, Conversation)
    return [message["content"] for message in record.messages]


def opening(record: Record) -> str:
    assert isinstance(record, Conversation)
    return first_user_message(record.messages)


def test_chatterbot_gives_pairs_and_counts_what_it_leaves_out(tiny_home: Path) -> None:
    source = open_source(SourceConfig(name="chatterbot-en"), tiny_home)
    assert sorted(map(contents, everything(source))) == [["A", "B"], ["Hello", "Hi"]]
    assert dict(source.left_out.counts) == {
        "nobody answered": 1,
        "closing user message without a reply (the rest is kept)": 1,
        "empty message": 1,
    }
    assert "greetings.yml: conversation 2" in source.left_out.first_place["nobody answered"]


def test_chitchat_merges_one_speakers_messages_and_alternates_roles(tiny_home: Path) -> None:
    records = everything(open_source(SourceConfig(name="chitchat"), tiny_home))
    assert sorted(map(contents, records)) == [
        ["Hello How are you?", "fine and you?"],
        ["One Two", "Three"],
        ["Tea?", "Yes please"],
    ]
    for record in records:
        assert isinstance(record, Conversation)
        assert [message["role"] for message in record.messages] == ["user", "assistant"]


def test_a_chat_held_out_as_text_is_held_out_as_conversation(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(SourceConfig(name="chitchat"), tiny_home)
    assert "One Two" in {contents(record)[0] for record in source.records("train")}
    monkeypatch.setattr(chitchat, "race_held_out", lambda: frozenset({texts.text_hash("One\n  \nTwo\nThree")}))
    assert "One Two" in {contents(record)[0] for record in source.records("heldout")}
    assert "One Two" not in {contents(record)[0] for record in source.records("train")}


def test_a_chat_held_out_as_text_whose_prompt_is_trained_on_is_in_neither_split(
    tiny_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(_: bytes) -> list[tuple[str, list[list[dict[str, str]]]]]:
        turns = [[[{"sender": "a", "text": "One Two"}], [{"sender": "b", "text": reply}]] for reply in ("x", "y")]
        return list(zip("12", turns, strict=True))

    source = open_source(SourceConfig(name="chitchat"), tiny_home)
    monkeypatch.setattr(chitchat, "raw_conversations", twice)
    assert [contents(record)[1] for record in source.records("train")] == ["x", "y"]
    monkeypatch.setattr(chitchat, "race_held_out", lambda: frozenset({texts.text_hash("One Two\ny")}))
    assert [contents(record)[1] for record in everything(source)] == ["x"]
    assert dict(source.left_out.counts) == {"held out as text, but its first message is asked in training": 1}


def test_wiki_counts_the_empty_and_law_the_incomplete_rest(tiny_home: Path) -> None:
    wiki, law = (open_source(SourceConfig(name=name), tiny_home) for name in ("wiki", "law"))
    assert len(everything(wiki)) == 60
    assert dict(wiki.left_out.counts) == {"empty text": 1}
    assert [record.text.count("\n") + 1 for record in everything(law) if isinstance(record, Document)] == [20, 20]
    assert dict(law.left_out.counts) == {"articles after the last full twenty": 5}


def test_news_loses_its_tags(tiny_home: Path) -> None:
    first = everything(open_source(SourceConfig(name="news"), tiny_home))[0]
    assert isinstance(first, Document)
    assert first.text.startswith("新闻0日\n新闻1日")
    assert (first.language, first.source) == ("zh", "news")


def test_review_pairs_ask_for_the_chosen_kind(tiny_home: Path) -> None:
    pairs = everything(open_source(SourceConfig(name="review-sentiment"), tiny_home))
    assert [(p.prompt[0]["content"], p.chosen, p.rejected) for p in pairs if isinstance(p, Preference)] == [
        ("请写一条好评。", "好书", "差"),
        ("请写一条差评。", "很差", "很好"),
    ]


def test_identity_says_this_projects_name(tiny_home: Path) -> None:
    replies = {contents(record)[1] for record in everything(open_source(SourceConfig(name="identity"), tiny_home))}
    assert replies == {"I am Duihua, made by the Duihua project.", "我是 Duihua，由 Duihua 项目开发。"}


def test_alpaca_joins_instruction_and_input(tiny_home: Path) -> None:
    source = open_source(SourceConfig(name="alpaca-en"), tiny_home)
    assert list(map(contents, everything(source))) == [["Add\n1 and 2", "3"]]
    assert dict(source.left_out.counts) == {"empty message": 1}


def test_glaive_calls_become_the_assistants_words_and_an_answer_without_a_call_is_counted(tiny_home: Path) -> None:
    source = open_source(SourceConfig(name="glaive-en"), tiny_home)
    with_tools, without = sorted(everything(source), key=lambda record: "Rome" not in opening(record))
    assert isinstance(with_tools, Conversation) and isinstance(without, Conversation)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    schema = {"name": "weather", "description": "Weather now", "parameters": {"type": "object"}}
    assert with_tools.messages == [
        {"role": "system", "content": "", "tools": [{"type": "function", "function": schema}]},
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": call},
        {"role": "tool", "content": '{"celsius": 21}'},
        {"role": "assistant", "content": "It is 21 degrees."},
    ]
    assert contents(without) == ["Hello", "Hi"]
    assert dict(source.left_out.counts) == {"a tool's answer without a call": 1}
    assert "record 3: conversations[2]" in source.left_out.first_place["a tool's answer without a call"]


def test_preferences_keep_their_system_message_and_hold_out_a_fifth(tiny_home: Path) -> None:
    source = open_source(SourceConfig(name="dpo-en"), tiny_home)
    pairs = [pair for pair in everything(source) if isinstance(pair, Preference)]
    assert len(pairs) == 20
    assert [message["role"] for message in pairs[0].prompt] == ["system", "user"]
    assert (pairs[0].chosen, pairs[0].rejected, pairs[0].kind) == ("A good answer", "A bad answer", "human")
    usual = {pair.prompt[-1]["content"] for pair in pairs if is_held_out(pair)}
    assert usual <= {pair.prompt[-1]["content"] for pair in source.records("heldout") if isinstance(pair, Preference)}


def test_race_text_that_comes_out_with_another_hash_is_refused(tiny_home: Path) -> None:
    with pytest.raises(DataError, match=r"SHA-256 .* should be 9bb5f8e1"):
        list(open_source(SourceConfig(name="race-text"), tiny_home).records("heldout"))


def test_race_text_is_built_once_and_mended_when_broken(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = RaceText(tiny_home)
    with pytest.raises(DataError):
        source.build()
    # the held-out file is written first: take its bytes as right, then the train file's
    for split in ("heldout", "train"):
        digest = hashlib.sha256(source.built_file(split).read_bytes()).hexdigest()  # type: ignore[arg-type]
        monkeypatch.setattr(RaceText, "sha256", {**RaceText.sha256, split: digest})
        if split == "heldout":
            with pytest.raises(DataError):
                source.build()
    records = everything(source)
    # 60 articles, 4 chats, 2 law documents of 20, 3 of news, 2 of reviews; a fiftieth of 71 held out
    assert [len(list(source.records(split))) for split in ("train", "heldout")] == [70, 1]  # type: ignore[arg-type]
    assert {record.source for record in records} == {"wiki", "chat", "law", "news", "review"}
    assert {(r.source, r.language) for r in records} >= {("wiki", "en"), ("news", "zh")}
    stamp = source.built_file("train").stat().st_mtime_ns
    assert everything(source) == records
    assert source.built_file("train").stat().st_mtime_ns == stamp
    source.built_file("train").write_text("broken")
    assert everything(source) == records


def test_a_source_that_was_never_fetched_says_how_to_get_it(tmp_path: Path) -> None:
    for name in STARTER:
        with pytest.raises(DataError, match="duihua data get starter"):
            open_source(SourceConfig(name=name), tmp_path)


def test_fingerprints_differ_between_sources_and_limits(tiny_home: Path) -> None:
    configs = [SourceConfig(name=name) for name in STARTER if name != "race-text"]
    configs.append(SourceConfig(name="wiki", limit=3))
    prints = [open_source(config, tiny_home).fingerprint() for config in configs]
    assert len(set(prints)) == len(prints)
    assert prints[0] == open_source(configs[0], tiny_home).fingerprint()


def test_limit_gives_the_first_records_of_each_split(tiny_home: Path) -> None:
    whole = list(open_source(SourceConfig(name="wiki"), tiny_home).records("train"))
    limited = open_source(SourceConfig(name="wiki", limit=3), tiny_home)
    assert list(limited.records("train")) == whole[:3]


def test_impossible_configs_are_refused(tmp_path: Path) -> None:
    for config, said in [
        (SourceConfig(), "exactly one"),
        (SourceConfig(name="wiki", path="x"), "exactly one"),
        (SourceConfig(name="chitchatt"), "Did you mean chitchat"),
        (SourceConfig(name="wiki", limit=-1), "negative"),
    ]:
        with pytest.raises(ConfigError, match=said):
            open_source(config, tmp_path)


def test_a_known_source_keeps_its_kind(tiny_home: Path) -> None:
    with pytest.raises(ConfigError, match="holds text, not conversations"):
        open_source(SourceConfig(name="wiki", kind="conversations"), tiny_home)


def test_every_known_source_states_licence_and_attribution(tiny_home: Path) -> None:
    for name in STARTER:
        source = open_source(SourceConfig(name=name), tiny_home)
        assert source.name == name
        assert all((source.terms.licence, source.terms.homepage, source.terms.attribution))
        assert isinstance(source, StarterSource)


def test_greetings_are_twenty_for_each_language_with_references() -> None:
    found = greetings()
    assert [greeting["language"] for greeting in found] == ["en"] * 20 + ["zh"] * 20
    assert all(greeting["references"] for greeting in found)
    assert len({normalised(greeting["prompt"]) for greeting in found}) == 40
    # asked in training, so never a held-out prompt
    for greeting in found:
        asked = Conversation([{"role": "user", "content": greeting["prompt"]}], "", greeting["language"])
        assert not is_held_out(asked)


def test_collect_gives_each_reply_once_and_nothing_for_what_is_not_asked(tiny_home: Path) -> None:
    found = collect(["hello!", "Never asked"], tiny_home)
    assert found == [
        {"language": "en", "prompt": "hello!", "references": ["Hi"]},
        {"language": "", "prompt": "Never asked", "references": []},
    ]


# ---- the real archives -------------------------------------------------------------------------------------------------

HOME = data_directory()
REAL = all(find_archive(archive, HOME) for archive in starter_archives().values())
real = pytest.mark.skipif(not REAL, reason=f"the starter archives are not in {HOME}: `duihua data get starter`")


@real
@pytest.mark.parametrize("name", [name for name in STARTER if name != "race-text"])
def test_real_source_has_the_stated_counts_and_a_clean_split(name: str) -> None:
    source = open_source(SourceConfig(name=name), HOME)
    assert isinstance(source, StarterSource)
    train, heldout = list(source.records("train")), list(source.records("heldout"))
    assert (len(train), len(heldout)) == tuple(source.counts)
    assert {record.language for record in train} == ({"en", "zh"} if source.language == "mixed" else {source.language})
    if isinstance(train[0], Conversation):
        asked = [{normalised(opening(record)) for record in part} for part in (train, heldout)]
        assert not asked[0] & asked[1]


@real
def test_real_race_text_has_its_hashes(tmp_path: Path) -> None:
    (tmp_path / "archives").symlink_to(HOME / "archives")
    source = RaceText(tmp_path)
    assert len(list(source.records("heldout"))) == source.counts.heldout
    assert len(list(source.records("train"))) == source.counts.train
    for split in ("train", "heldout"):
        digest = hashlib.sha256(source.built_file(split).read_bytes()).hexdigest()  # type: ignore[arg-type]
        assert digest == RaceText.sha256[split]  # type: ignore[index]
    with open(source.built_file("heldout"), encoding="utf-8") as file:
        assert {texts.text_hash(json.loads(line)["text"]) for line in file} == texts.race_held_out()


@real
def test_real_chats_held_out_of_the_race_text_are_not_trained_on() -> None:
    source = open_source(SourceConfig(name="chitchat"), HOME)
    raw = chitchat.raw_conversations(source.member(chitchat.PACKAGE, chitchat.MEMBER))  # type: ignore[attr-defined]
    held = {
        tuple(message["content"] for message in chitchat.merged_turns(turns))
        for _, turns in raw
        if texts.text_hash(chitchat.flattened(turns)) in texts.race_held_out()
    }
    trained = {tuple(contents(record)) for record in source.records("train")}
    assert len(held) > 100
    assert not {turns[: len(turns) // 2 * 2] for turns in held if len(turns) > 1} & trained


@real
def test_real_greetings_are_what_the_data_says() -> None:
    assert set(SOURCES) <= set(STARTER)
    assert collect([greeting["prompt"] for greeting in greetings()], HOME) == greetings()
