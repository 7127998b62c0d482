"""The store: a tree that loses nothing, search, and schema versions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import OperationalError

from duihua.errors import ConfigError, ServingError
from duihua.serving.config import ServingConfig
from duihua.serving.conversations import (
    MIGRATIONS,
    Conversation,
    ConversationStore,
    NotFoundError,
    StoredMessage,
    title_of,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConversationStore]:
    made = ConversationStore(f"sqlite:///{tmp_path / 'deep' / 'folder' / 'c.sqlite3'}")
    yield made
    made.close()


def say(store: ConversationStore, conversation: str, parent: str | None, role: str, content: str) -> str:
    return store.add(conversation, parent_id=parent, role=role, content=content).id


def test_a_new_version_of_a_question_leaves_the_old_branch_whole(store: ConversationStore) -> None:
    c = store.create().id
    question = say(store, c, None, "user", "你好")
    answer = say(store, c, question, "assistant", "Hello!")
    edited = say(store, c, None, "user", "你好吗？")
    assert store.get(c).leaf_id == edited
    assert [m.content for m in store.path(c, edited)] == ["你好吗？"]
    assert [m.content for m in store.path(c, answer)] == ["你好", "Hello!"]
    store.update(c, leaf_id=answer)
    assert store.get(c).leaf_id == answer


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parents=st.lists(st.integers(-1, 30), max_size=30))
def test_every_message_keeps_its_path_whatever_is_added(store: ConversationStore, parents: list[int]) -> None:
    """Against a list kept by hand: message i hangs under message parents[i], or is a first one."""
    c = store.create().id
    ids: list[str] = []
    paths: list[list[str]] = []
    for i, wanted in enumerate(parents):
        parent = wanted if 0 <= wanted < i else None
        paths.append([*(paths[parent] if parent is not None else []), str(i)])
        ids.append(say(store, c, ids[parent] if parent is not None else None, "user", str(i)))
    for message, path in zip(ids, paths, strict=True):
        assert [m.content for m in store.path(c, message)] == path
    assert [m.content for m in store.messages(c)] == [str(i) for i in range(len(parents))]


def test_search_finds_titles_and_messages_in_both_languages_literally(store: ConversationStore) -> None:
    music, plain = store.create(title="About music").id, store.create(title="Other").id
    say(store, plain, None, "user", "你喜欢什么音乐？ 100% sure")
    assert [c.id for c in store.list("MUSIC")] == [music]
    assert [c.id for c in store.list("音乐")] == [plain]
    assert [c.id for c in store.list("100%")] == [plain]
    assert store.list("%") != store.list("")  # a percent sign is a percent sign, not "anything"
    assert store.list("nothing like it") == []


def test_the_latest_conversation_is_first(store: ConversationStore) -> None:
    first, second = store.create().id, store.create().id
    say(store, first, None, "user", "back to the first")
    assert [c.id for c in store.list()] == [first, second]


def test_the_title_is_the_first_line_of_the_first_question(store: ConversationStore) -> None:
    c = store.create().id
    say(store, c, None, "user", "  Hello   there\nsecond line")
    say(store, c, None, "user", "another")
    assert store.get(c).title == "Hello there"
    assert len(title_of("长" * 500)) == 60


def test_deleting_a_conversation_deletes_its_messages(store: ConversationStore) -> None:
    c = store.create().id
    message = say(store, c, None, "user", "gone")
    store.delete(c)
    for read in (lambda: store.get(c), lambda: store.messages(c), lambda: store.delete(c)):
        with pytest.raises(NotFoundError):
            read()
    with pytest.raises(NotFoundError):
        store.write(message, content="late", details={})


def a_long_conversation(store: ConversationStore, count: int) -> str:
    """Each message under the one before, written in one transaction."""
    c = store.create().id
    with store._session(writes=True) as session:
        for i in range(count):
            role, parent = ("user", "assistant")[i % 2], f"m{i - 1}" if i else None
            row = {"sequence": i, "role": role, "content": "x", "model": "", "details": {}, "created_at": 0.0}
            session.execute(insert(StoredMessage).values(id=f"m{i}", conversation_id=c, parent_id=parent, **row))
    return c


def test_a_conversation_longer_than_sqlites_cascade_can_be_deleted(store: ConversationStore) -> None:
    other = store.create().id
    kept = say(store, other, say(store, other, None, "user", "stays"), "assistant", "stays too")
    c = a_long_conversation(store, 1500)
    store.delete(c)
    with pytest.raises(NotFoundError):
        store.messages(c)
    with store._session() as session:
        assert session.scalar(select(func.count()).select_from(StoredMessage)) == 2
    assert [m.content for m in store.path(other, kept)] == ["stays", "stays too"]
    again = a_long_conversation(store, 1500)  # negative control: the cascade alone does not reach that far
    with pytest.raises(OperationalError, match="too many levels"), store._session(writes=True) as session:
        session.execute(delete(Conversation).where(Conversation.id == again))


def test_a_message_of_another_conversation_is_no_parent_and_no_leaf(store: ConversationStore) -> None:
    mine, other = store.create().id, store.create().id
    foreign = say(store, other, None, "user", "theirs")
    with pytest.raises(NotFoundError):
        say(store, mine, foreign, "user", "mine")
    with pytest.raises(NotFoundError):
        store.update(mine, leaf_id=foreign)
    with pytest.raises(NotFoundError):
        store.path(mine, foreign)


def test_writers_in_many_threads_lose_nothing(store: ConversationStore) -> None:
    c = store.create().id

    def write(number: int) -> None:
        for i in range(10):
            say(store, c, None, "user", f"{number}/{i}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = store.messages(c)
    assert len(messages) == 40
    assert [m.sequence for m in messages] == list(range(40))


def test_history_outlives_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'c.sqlite3'}"
    store = ConversationStore(url)
    c = store.create(title="记住我", system="s", settings={"top_k": 3}).id
    store.close()
    again = ConversationStore(url)
    found = again.get(c)
    again.close()
    assert (found.title, found.system, found.settings) == ("记住我", "s", {"top_k": 3})


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    ConversationStore(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE schema_version SET version = ?", (len(MIGRATIONS) + 1,))
    with pytest.raises(ServingError, match="schema version"):
        ConversationStore(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(len(MIGRATIONS) + 1,)]


@pytest.mark.parametrize(
    "name",
    ["sqlite://", "sqlite:///:memory:", ":memory:", "sqlite+pysqlite://", "sqlite:///file:x?mode=memory&uri=true"],
)
def test_a_database_in_memory_is_refused_because_threads_could_not_share_it(name: str) -> None:
    config = ServingConfig(store=name)
    with pytest.raises(ConfigError, match="memory"):
        config.check()
    with pytest.raises(ConfigError, match="memory"):
        ConversationStore(config.store_url)


def test_every_thread_sees_the_conversations_of_a_file(tmp_path: Path) -> None:
    """The control of the test above: what is accepted can be shared."""
    config = ServingConfig(store=f"sqlite:///{tmp_path / 'c.sqlite3'}")
    config.check()
    store = ConversationStore(config.store_url)
    c = store.create().id
    with ThreadPoolExecutor(1) as other:
        assert other.submit(store.get, c).result().id == c
    store.close()


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    path.write_bytes(b"this is not a database, it is a text file\n" * 50)
    with pytest.raises(ServingError, match="not a database") as caught:
        ConversationStore(f"sqlite:///{path}")
    assert "--store" in str(caught.value)
    assert path.read_bytes().startswith(b"this is not")
