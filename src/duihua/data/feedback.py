"""What people said on the chat page, counted, and cut into parts of which none knows another.

Why a copy and not the store: a server goes on writing into its store while a model is trained, and a training whose data
moves under it is refused. So the pairs are written down once, when a version is begun, and the version says what it was
made of even when the conversations are deleted later.

Why three parts, each by a hash of the first thing that the user said: prompts that are held out are those on which the
old model and the new one are compared; of the rest the judge of that comparison learns from one half (`in_half`) and the new
model from the other, so that what the one took for granted by chance the other need not. New votes move no old one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from duihua.data.message_columns import HUMAN
from duihua.data.pairs import in_half
from duihua.data.preference_sets import distinct
from duihua.data.records import Conversation, LeftOut, Preference, detect_language, is_held_out, normalised
from duihua.data.source import SourceConfig
from duihua.data.vote_store import read_store
from duihua.data.votes import HELD_OUT_OF_VOTES, Votes
from duihua.errors import DataError
from duihua.files import read_json, sha256_json, write_atomic, write_json

Part = Literal["learn", "judge", "heldout"]
PARTS: tuple[Part, ...] = ("learn", "judge", "heldout")
LEARNERS_HALF, JUDGES_HALF = "first", "second"
FEWEST_TO_LEARN, FEWEST_TO_JUDGE, FEWEST_PROMPTS = 16, 8, 8
"""Pairs and prompts below which nothing is trained. Of 8 prompts even 8 wins leave an interval from 0.68, 6 wins one from
0.41: with fewer no gate could ever be met or missed for a reason."""
RECORD = "data.json"
"""Written last: a folder that has it is whole."""


@dataclass(frozen=True)
class ConversationCount:
    """What was said in one conversation."""

    id: str
    title: str
    up: int
    down: int
    corrections: int
    pairs: int


@dataclass(frozen=True)
class Feedback:
    """Everything of a store that a training can use. pairs: each once, by part; prompts: questions with a reply, by part
    ("judge" has none); conversations: those in which something was judged."""

    store: Path
    pairs: dict[Part, list[Preference]]
    prompts: dict[Part, list[Conversation]]
    conversations: list[ConversationCount]
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def fingerprint(self) -> str:
        """Hash of the pairs and prompts: the same, and a training on them would be the same."""
        pairs = [[part, one.prompt, one.chosen, one.rejected] for part in PARTS for one in self.pairs[part]]
        return sha256_json([pairs, [[part, one.messages] for part in PARTS for one in self.prompts[part]]])

    def counts(self) -> dict[str, Any]:
        """As `duihua feedback show --json` prints it."""
        found = [pair for part in PARTS for pair in self.pairs[part]]
        return {
            "store": str(self.store),
            "votes": {
                "up": sum(one.up for one in self.conversations),
                "down": sum(one.down for one in self.conversations),
            },
            "corrections": sum(one.corrections for one in self.conversations),
            "pairs": len(found),
            "pairs_by_kind": dict(Counter(pair.kind for pair in found)),
            "pairs_by_language": dict(Counter(pair.language for pair in found)),
            "pairs_by_part": {part: len(self.pairs[part]) for part in PARTS},
            "prompts_held_out": len(self.prompts["heldout"]),
            "conversations": [vars(one) for one in self.conversations],
            "left_out": self.left_out.to_mapping(),
        }


def read_feedback(path: Path, *, judge: bool = True) -> Feedback:
    """Read a store. judge: whether one is to be trained; where there is one already, its pairs are learnt from too.

    Raises DataError where the file is no store, or holds no pair.
    """
    store, left_out = read_store(path), LeftOut()
    judged = Votes(SourceConfig(path=str(path), kind="preferences")).judged(store, left_out)
    pairs = distinct([one.pair for one in judged], left_out)
    kept = {id(pair) for pair in pairs}
    made = Counter(one.conversation for one in judged if id(one.pair) in kept)
    said: dict[str, Counter[str]] = {}
    for turn in store.turns():
        if turn.judged and turn.conversation in store.titles:
            counts = said.setdefault(turn.conversation, Counter())
            counts.update(up=int(turn.vote > 0), down=int(turn.vote < 0), corrections=int(bool(turn.correction)))
    conversations = [
        ConversationCount(one, store.titles[one], counts["up"], counts["down"], counts["corrections"], made[one])
        for one, counts in said.items()
    ]
    by_part: dict[Part, list[Preference]] = {part: [] for part in PARTS}
    for pair in pairs:
        by_part[part_of(pair, judge=judge)].append(pair)
    prompts: dict[Part, list[Conversation]] = {part: [] for part in PARTS}
    for conversation in _distinct(store.conversations()):
        prompts["heldout" if is_held_out(conversation, HELD_OUT_OF_VOTES) else "learn"].append(conversation)
    return Feedback(path, by_part, prompts, conversations, left_out)


def part_of(pair: Preference, *, judge: bool = True) -> Part:
    """Who may see a pair. All pairs that begin with the same message stand in one part, whatever else there is."""
    if is_held_out(pair, HELD_OUT_OF_VOTES):
        return "heldout"
    return "judge" if judge and in_half(pair.prompt, JUDGES_HALF) else "learn"


def _distinct(conversations: Iterable[Conversation]) -> list[Conversation]:
    """One for each prompt: two questions that read alike are one."""
    found: dict[str, Conversation] = {}
    for one in conversations:
        key = "\x1e".join(normalised(message["content"]) or message["content"] for message in one.messages[:-1])
        found.setdefault(key, one)
    return list(found.values())


def short_of(
    feedback: Feedback,
    *,
    learn: int = FEWEST_TO_LEARN,
    judge: int = FEWEST_TO_JUDGE,
    heldout: int = FEWEST_PROMPTS,
) -> list[str]:
    """A line for each part that has not enough: what there is and what is needed.

    learn, judge: pairs; heldout: prompts on which two models can be compared.
    """
    wanted = {
        "pairs to learn from": (len(feedback.pairs["learn"]), learn),
        "pairs for the judge": (len(feedback.pairs["judge"]), judge),
        "held-out prompts to compare on": (len(feedback.prompts["heldout"]), heldout),
    }
    return [f"{there} {what}, {needed} are needed" for what, (there, needed) in wanted.items() if there < needed]


def require_enough(feedback: Feedback, **needed: int) -> None:
    """DataError with everything that is short, if anything is; `needed` as `short_of` has it."""
    short = short_of(feedback, **needed)
    if short:
        total = sum(map(len, feedback.pairs.values()))
        raise DataError(
            f"too few pairs, {total} in all: {'; '.join(short)}",
            where=str(feedback.store),
            remedy="Vote on more versions of replies or correct more of them; about one prompt in five is held out",
        )


def write_parts(feedback: Feedback, folder: Path) -> None:
    """Write the pairs and prompts as .jsonl files, and `data.json`, which counts them, as the last."""
    for part in PARTS:
        rows = [{"prompt": one.prompt, "chosen": one.chosen, "rejected": one.rejected} for one in feedback.pairs[part]]
        _write(pairs_file(folder, part), rows)
        _write(prompts_file(folder, part), [{"messages": one.messages} for one in feedback.prompts[part]])
    write_json(folder / RECORD, {"fingerprint": feedback.fingerprint, **feedback.counts()})


def written_parts(folder: Path) -> dict[str, Any] | None:
    """What `data.json` of a whole folder says; None where the folder is not whole."""
    if not (folder / RECORD).is_file():
        return None
    found = read_json(folder / RECORD)
    return found if isinstance(found, dict) else None


def read_pairs(folder: Path, part: Part) -> list[Preference]:
    """The pairs of a part as they were written."""
    path = pairs_file(folder, part)
    found = []
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        row = json.loads(line)
        language = detect_language("\n".join(message["content"] for message in row["prompt"]))
        found.append(Preference(row["prompt"], row["chosen"], row["rejected"], str(path), HUMAN, language))
    return found


def pairs_file(folder: Path, part: Part) -> Path:
    """The pairs of a part, each as {"prompt", "chosen", "rejected"}."""
    return folder / f"pairs-{part}.jsonl"


def prompts_file(folder: Path, part: Part) -> Path:
    """The prompts of a part, each with a reply as {"messages"}."""
    return folder / f"prompts-{part}.jsonl"


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "replace"))
