"""The reward model must learn a rule that holds on held-out pairs, and nothing from labels that are tossed up.

The whole stage runs, from files to the accuracy of its result, on replies of four words each. The rule: the reply that names
more animals is liked better. No length and no single word decides it, the animals have to be counted. Tossed labels are of
the same replies; the accuracy on other tossed labels is then a mean over n fair coins, whatever was learnt, with a standard
error of sqrt(0.25 / n): more than 3 of them would mean that the stage had seen what it is tested on, or tells the two sides
of a pair apart.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from duihua.data.source import SourceConfig
from duihua.stages import reward
from duihua.stages.context import StageContext
from duihua.stages.reward_pairs import Pair, PairData, PairMaker

pytestmark = pytest.mark.learning

ANIMALS = ("cat", "dog", "bird")
SEEDS = (1, 2, 3)
OTHERS = ("red", "blue", "green", "sings", "runs", "sleeps")


def pairs(count: int, seed: int, prompt: str, tossed: bool) -> list[dict[str, str]]:
    """Pairs of four-word replies, the one with more animals chosen; or, tossed, either."""
    chance = random.Random(seed)
    found: list[dict[str, str]] = []
    while len(found) < count:
        sides = [chance.choices(ANIMALS + OTHERS, weights=[2] * 3 + [1] * 6, k=4) for _ in range(2)]
        animals = [sum(word in ANIMALS for word in side) for side in sides]
        if animals[0] != animals[1]:
            first = chance.randrange(2) if tossed else int(animals[1] > animals[0])
            chosen, rejected = " ".join(sides[first]), " ".join(sides[1 - first])
            found.append({"prompt": f"{prompt} {len(found)}", "chosen": chosen, "rejected": rejected})
    return found


def accuracy(lab: Any, folder: Path, seed: int, *, train: int, heldout: int, tossed: bool, **changes: Any) -> Any:
    """The held-out accuracy of the stage's result, {"value": ..., "n": ...}."""
    folder.mkdir()
    files = {"train": pairs(train, seed, "name", tossed), "heldout": pairs(heldout, seed + 1000, "say", tossed)}
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    source = SourceConfig(
        path=str(folder / "train.jsonl"), heldout=str(folder / "heldout.jsonl"), kind="preferences", language="en"
    )
    config = lab.reward_config(folder, preferences=(source,), conversations=(), **changes)
    policy = lab.policy_bundle(folder / "sft", seed=seed)
    context = StageContext(folder / "reward", {"policy": policy}, data_directory=folder, seed=seed, threads=1)
    return reward.run(config, context).metrics["accuracy"]


def half_swapped(right: Any, self: PairMaker, records: Any, split: str, data: PairData) -> list[Pair]:
    found: list[Pair] = right(self, records, split, data)
    if split == "train":
        found[::2] = [dataclasses.replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in found[::2]]
    return found


def judged_by_what_was_learnt(right: Any, *arguments: Any) -> PairData:
    data: PairData = right(*arguments)
    data.heldout = data.train
    return data


@pytest.mark.mutation(
    "chosen and rejected are swapped in every second pair",
    "duihua.stages.reward_pairs:PairMaker._encoded",
    half_swapped,
)
@pytest.mark.mutation(
    "the worse reply is the one that gains",
    "duihua.stages.reward:bradley_terry",
    lambda right, chosen, rejected, *rest: right(rejected, chosen, *rest),
)
def test_a_rule_is_learnt_and_holds_on_held_out_pairs(lab: Any, tmp_path: Path) -> None:
    for seed in SEEDS:
        found = accuracy(lab, tmp_path / str(seed), seed, train=1000, heldout=400, tossed=False)
        assert found["n"] == 400
        assert found["value"] >= 0.95


@pytest.mark.mutation(
    "the pairs of the test are those that were learnt",
    "duihua.stages.reward_pairs:PairMaker.make",
    judged_by_what_was_learnt,
)
def test_tossed_labels_teach_nothing(lab: Any, tmp_path: Path) -> None:
    """Eight passes over 200 pairs, so that there is something to give away: they are learnt by heart."""
    for seed in SEEDS:
        found = accuracy(lab, tmp_path / str(seed), seed, train=200, heldout=1000, tossed=True, epochs=8)
        assert abs(found["value"] - 0.5) < 3 * math.sqrt(0.25 / found["n"])
