"""The six kinds of record that sources yield, and the count of what a source left out.

Why six and no more: pre-training reads documents, supervised fine-tuning reads conversations, the reward model reads
preferences, a classifier labelled texts or choices between endings, a translator parallel texts. Whatever the file or
archive looked like, it becomes one of these before any stage sees it, so that a stage never knows where its data came from.

Why a record that cannot be used is counted and not raised: one broken line in a million should not stop a night's run,
and should not vanish either. A reader adds it to a `LeftOut`, which the stage stores and the command line prints.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

Kind = Literal["text", "conversations", "preferences", "labelled", "choices", "parallel"]
Split = Literal["train", "heldout"]

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
ROLES = (SYSTEM, USER, ASSISTANT, TOOL)
HELD_OUT_SHARE = 0.05
"""Share of a source's records that training never sees, where the source has no split of its own."""
NONE_HELD_OUT = "no record is held out"
ALL_HELD_OUT = "every record is held out, and none is left to train on"
ADD_RECORDS = (
    "Add records (a long text is cut into several), or name a file of held-out ones in the source's `heldout:`"
)


class Message(TypedDict):
    """One message, as in the OpenAI API; an assistant's calls and thoughts are part of its content (text/tools.py).

    tools: what the assistant may call, JSON schemas; of a system message alone, whose content may then be empty.
    """

    role: str
    content: str
    tools: NotRequired[list[dict[str, Any]]]


@dataclass(frozen=True)
class Document:
    """A piece of running text. `source` may name a part of a source ("wiki" in the race text)."""

    text: str
    source: str
    language: str


@dataclass(frozen=True)
class Conversation:
    """Messages: at most one system message at the front, then user and assistant in turn, ending with the assistant; between
    an assistant's call and its next words stand the tools' answers."""

    messages: list[Message]
    source: str
    language: str


@dataclass(frozen=True)
class Preference:
    """Two replies to one prompt, the first liked better. `prompt` ends with a user message.

    kind: how the preference came about: "human" (a person or a strong model judged), "sentiment", "sampled", "off-topic",
    "cut short".
    """

    prompt: list[Message]
    chosen: str
    rejected: str
    source: str
    kind: str
    language: str


@dataclass(frozen=True)
class Labelled:
    """One text, or two that are judged together (sentence pairs), with the name of its class."""

    texts: tuple[str, ...]
    label: str
    source: str
    language: str


@dataclass(frozen=True)
class Choice:
    """A context (question, beginning of a story) and what may follow it; `answer` is the index of the right option."""

    context: str
    options: tuple[str, ...]
    answer: int
    source: str
    language: str


@dataclass(frozen=True)
class Parallel:
    """One text in two languages: `texts[i]` is in `languages[i]`. Neither is the source by itself: a translator chooses.

    attribution: who is to be named for this pair, where the source's terms ask for it pair by pair; else empty.
    """

    texts: tuple[str, str]
    languages: tuple[str, str]
    source: str
    attribution: str = ""

    @property
    def language(self) -> str:
        """Both languages, as "fr-en"."""
        return "-".join(self.languages)


Record: TypeAlias = Document | Conversation | Preference | Labelled | Choice | Parallel


class BadRecordError(Exception):
    """A row that gives no record: why, and in which field. Never leaves the data package."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.reason, self.field = reason, field


class EqualSidesError(BadRecordError):
    """Both replies of a preference are the same: it prefers nothing."""


class NoReplyError(BadRecordError):
    """A side of a preference has no reply of the assistant."""


class DifferentPromptsError(BadRecordError):
    """The two sides of a preference answer different prompts, so that they cannot be compared."""


@dataclass
class LeftOut:
    """How many records a pass over a source left out, by reason, with the first place where each reason was met."""

    counts: Counter[str] = field(default_factory=Counter)
    first_place: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, place: str = "", count: int = 1) -> None:
        """Count `count` records left out for `reason`, met at `place` (file, line, field)."""
        self.counts[reason] += count
        self.first_place.setdefault(reason, place)

    @property
    def total(self) -> int:
        """Records left out for any reason."""
        return self.counts.total()

    def to_mapping(self) -> dict[str, Any]:
        """{"total": n, "reasons": {reason: {"count": n, "first": place}}}, for a stage's result and for --json."""
        reasons = {
            reason: {"count": count, "first": self.first_place[reason]} for reason, count in self.counts.most_common()
        }
        return {"total": self.total, "reasons": reasons}


def first_user_message(messages: Sequence[Message]) -> str:
    """The content of the first user message, or of the first message where no user speaks; "" where there is none."""
    for message in messages:
        if message["role"] == USER:
            return message["content"]
    return messages[0]["content"] if messages else ""


def message_text(message: Message) -> str:
    """All text of a message: the tools that it lists, and its content."""
    tools = [json.dumps(tool, ensure_ascii=False) for tool in message.get("tools", [])]
    return "\n".join([*tools, message["content"]]) if tools else message["content"]


def record_text(record: Record) -> str:
    """All text of a record, one message a line: what duplicates are looked for in and what sizes are counted of."""
    if isinstance(record, Document):
        return record.text
    if isinstance(record, Conversation):
        return "\n".join(map(message_text, record.messages))
    if isinstance(record, Labelled | Parallel):
        return "\n".join(record.texts)
    if isinstance(record, Choice):
        return "\n".join([record.context, *record.options])
    return "\n".join([*map(message_text, record.prompt), record.chosen, record.rejected])


def is_held_out(record: Record, share: float = HELD_OUT_SHARE) -> bool:
    """Whether training must not see `record`. Depends on the record alone: not on order, file or seed.

    Of a document all of the text decides; of a conversation or preference the first user message, of a choice its
    context, compared as people would read them (`normalised`). Of parallel texts both decide, whichever stands first; their
    sources split by more than that (data/parallel/groups.py). So a prompt met in training is never asked again in a
    test, even with other punctuation, and all records with one prompt stand on one side. Of a labelled record its texts
    decide and not its label; a single text stands on the side on which it would stand as a document, so that
    pre-training on the texts of a labelled file never reads those that the classifier is tested on.
    """
    if isinstance(record, Document):
        key = record.text.strip()
    elif isinstance(record, Labelled):
        key = "\x1e".join(text.strip() for text in record.texts)
    elif isinstance(record, Parallel):
        key = "\x1e".join(sorted(normalised(text) or text for text in record.texts))
    elif isinstance(record, Choice):
        key = normalised(record.context) or record.context
    else:
        prompt = first_user_message(record.messages if isinstance(record, Conversation) else record.prompt)
        key = normalised(prompt) or prompt
    return _hash(key) < share * 2**64


def hash_order(record: Record, purpose: str = "order") -> int:
    """A number in [0, 2^64) out of all text of `record`: sorted by it, any first part of a source is a fair sample.

    Draws for one purpose say nothing about those for another, nor about what is held out.
    Labelled files are often sorted by class; their first thousand records would be one class.
    """
    return _hash(f"{purpose}\x1e{record_text(record)}")


def is_held_out_as_text(document: Document) -> bool:
    """Whether a text from the training part of a labelled source is kept to score a language model on.

    By a hash of its own: the usual one may have decided already which texts the classifier is tested on.
    """
    return hash_order(document, "language model") < HELD_OUT_SHARE * 2**64


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def normalised(text: str) -> str:
    """Text with case, punctuation, symbols and spaces removed (NFKC first): two texts that read alike become equal."""
    return _NOT_WORD.sub("", unicodedata.normalize("NFKC", text).lower())


_NOT_WORD = re.compile(r"[\W_]+")
_NOT_LETTER = re.compile(r"[\W\d_]+")
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def detect_language(text: str, sample: int = 4096) -> str:
    """ "zh" where at least a fifth of the letters in the first `sample` characters are Chinese, else "en".

    A Chinese character carries about as much as four Latin letters, hence a fifth and not a half.
    """
    head = text[:sample]
    letters = len(_NOT_LETTER.sub("", head))
    chinese = len(head) - len(_CHINESE.sub("", head))
    return "zh" if chinese and chinese * 5 >= letters else "en"
