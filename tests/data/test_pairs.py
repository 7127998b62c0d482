"""Exchanges out of conversations and pairs made from them: one prompt each, no leaks, everything counted."""

from __future__ import annotations

from duihua.data.pairs import (
    Exchange,
    count_by_source,
    exchanges,
    interleave,
    off_topic_pairs,
    sampled_pairs,
    shuffled,
)
from duihua.data.records import Conversation, LeftOut, Message


def conversation(*texts: str, source: str = "s") -> Conversation:
    roles = ("user", "assistant")
    return Conversation([{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)], source, "en")


def exchange(prompt: str, reply: str, source: str = "s", language: str = "en") -> Exchange:
    return Exchange([{"role": "user", "content": prompt}], reply, source, language)


def test_each_conversation_gives_one_exchange_that_ends_with_the_users_words() -> None:
    talk = conversation("a", "b", "c", "d")
    found = exchanges([talk], LeftOut())
    assert len(found) == 1
    assert found[0].prompt[-1]["role"] == "user"
    place = len(found[0].prompt)
    assert found[0].reply == talk.messages[place]["content"]
    assert found == exchanges([conversation("x", "y"), talk], LeftOut())[1:], "neighbours change nothing"


def test_what_follows_a_tools_answer_is_no_exchange_and_the_tools_are_part_of_the_prompt() -> None:
    def called(name: str) -> Conversation:
        tools = [{"type": "function", "function": {"name": name}}]
        turns = [("user", "q"), ("assistant", "call"), ("tool", "21"), ("assistant", "It is 21.")]
        messages = [Message(role=role, content=content) for role, content in turns]
        return Conversation([{"role": "system", "content": "", "tools": tools}, *messages], "s", "en")

    found = exchanges([called("weather"), called("clock"), called("clock")], LeftOut(), turns=2)
    assert [e.reply for e in found] == ["call", "call"]
    assert all(e.prompt[0]["tools"] and e.prompt[-1]["role"] == "user" for e in found)
    assert len({e.key for e in found}) == 2


def test_different_conversations_use_different_turns() -> None:
    lengths = {len(e.prompt) for e in exchanges([conversation("a", "b", str(i), "d") for i in range(40)], LeftOut())}
    assert lengths == {1, 3}


def test_repeated_prompts_and_empty_replies_are_counted() -> None:
    left_out = LeftOut()
    found = exchanges(
        [conversation("a", "b"), conversation("a", "other"), conversation("c", "  "), conversation("e")], left_out
    )
    assert len(found) == 1
    assert dict(left_out.counts) == {"prompt met before": 1, "empty reply": 1, "no reply to a prompt": 1}


def test_a_prompt_keeps_its_name_when_its_file_is_moved_and_loses_it_with_its_source() -> None:
    assert exchange("a", "b", "/one/votes.jsonl").key == exchange("a", "b", "/two/deeper/votes.jsonl").key
    assert exchange("a", "b", "/one/votes.jsonl").key != exchange("a", "b", "/one/other.jsonl").key
    assert exchange("a", "b", "owner/set").key != exchange("a", "b", "another/set").key, "two sets of a hub"


def test_order_depends_on_the_seed_and_not_on_the_input_order() -> None:
    items = [exchange(str(i), "r") for i in range(20)]
    assert shuffled(items, 1) == shuffled(items[::-1], 1)
    assert shuffled(items, 1) != shuffled(items, 2)


def test_every_beginning_is_mixed_by_weight() -> None:
    groups = [[exchange(f"{name}{i}", "r", source=name) for i in range(100)] for name in "ab"]
    mixed = interleave(groups, [3.0, 1.0])
    assert count_by_source(mixed[:40]) == {"a": 30, "b": 10}
    assert len(mixed) == 200, "a group that is used up leaves the rest to the others"
    assert count_by_source(interleave(groups, [1.0, 0.0])) == {"a": 100}


def test_off_topic_replies_come_from_another_prompt_and_differ() -> None:
    items = [exchange(f"prompt {i}", f"reply {'x' * i}") for i in range(12)]
    left_out = LeftOut()
    pairs = off_topic_pairs(items, 10, 0, left_out)
    assert len(pairs) == 10
    own = {e.prompt[0]["content"]: e.reply for e in items}
    for pair in pairs:
        assert pair.chosen == own[pair.prompt[0]["content"]] != pair.rejected
        assert pair.rejected in own.values()
        assert pair.kind == "off-topic"
    assert pairs == off_topic_pairs(items, 10, 0, LeftOut())


def test_off_topic_replies_stay_in_the_language_and_a_lonely_prompt_is_counted() -> None:
    items = [exchange("one", "a"), exchange("two", "b"), exchange("三", "丙", language="zh")]
    left_out = LeftOut()
    pairs = off_topic_pairs(items, 10, 0, left_out)
    assert {pair.language for pair in pairs} <= {"en"}
    assert left_out.counts["no other reply in this language"] >= 1


def test_off_topic_replies_are_near_in_length() -> None:
    items = [exchange(f"p{i}", "x" * (1 + i)) for i in range(64)]
    gaps = [abs(len(p.chosen) - len(p.rejected)) for p in off_topic_pairs(items, 64, 0, LeftOut())]
    assert sum(gaps) / len(gaps) < 5, "a reply drawn blindly is about 21 characters off"


def test_sampled_pairs_leave_out_and_count_empty_and_equal_samples() -> None:
    items = [exchange("a", "Hello!"), exchange("b", "Yes"), exchange("c", "No")]
    left_out = LeftOut()
    pairs = sampled_pairs(items, ["hello", " ", "maybe"], left_out)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("No", "maybe")]
    assert dict(left_out.counts) == {"sampled reply equals the person's": 1, "sampled reply is empty": 1}
