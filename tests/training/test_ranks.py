"""Several ranks learn what one learns: the same curves, the same decisions, and runs that change the number of ranks.

Two processes are started once; they run every case of rank_lab.py over gloo, and this process runs the same ones alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

TOLERANCE = 1e-5
HERE = Path(__file__).parent


def load_lab() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rank_lab", HERE / "rank_lab.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lab = load_lab()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Found:
    """What one process found alone, and what two ranks found."""

    def __init__(self, alone: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
        self.alone, self.ranks = alone, ranks

    def difference(self, one: Any, other: Any) -> float:
        return max(lab.differences(one, other))

    def apart(self, one: list[float], other: list[float]) -> float:
        return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    folder = tmp_path_factory.mktemp("ranks")
    ports = free_ports(lab.PORTS)
    (folder / "families").mkdir()
    makers = runpy.run_path(str(HERE.parent / "faults" / "families.py"))["Makers"](folder / "families")
    families = {name: list(makers.make(name).arguments) for name in lab.STAGES}
    (folder / "families.json").write_text(json.dumps(families), encoding="utf-8")
    common = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "rank_lab.py"), str(folder), *map(str, ports)]
    processes = [
        subprocess.Popen(command, env=common | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = {name: case(folder / "alone" / name) for name, case in lab.CASES.items()}
        alone["resumed"] = {
            kind: lab.curve(lab.trainer(kind, folder / "alone" / "resumed", **changes), 24)
            for kind, changes in lab.RESUMED
        }
        for name in lab.STAGES:
            alone[f"stage {name}"] = lab.stage(families[name], folder / "alone" / "stages" / name)
        said = [process.communicate(timeout=500)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(said)[-3000:]
        yield Found(alone, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)])
    finally:
        torch.set_num_threads(threads)
        for process in processes:
            process.kill()


@pytest.mark.parametrize("kind", ["pretrain", "sft", "reward", "ppo"])
def test_two_ranks_give_the_curve_of_one(found: Found, kind: str) -> None:
    alone, ranks = found.alone[kind], [rank[kind] for rank in found.ranks]
    assert len(alone) == 50
    assert abs(alone[-1] - alone[0]) > 0.1, "something is learnt"
    assert ranks[0] == ranks[1], "every rank knows the loss of all"
    assert found.difference(alone, ranks[0]) < TOLERANCE


def test_documents_are_masked_alike_on_two_ranks(found: Found) -> None:
    alone, ranks = found.alone["masked"], [rank["masked"] for rank in found.ranks]
    assert ranks[0] == ranks[1] and found.difference(alone, ranks[0]) < TOLERANCE
    assert found.difference(alone, found.ranks[0]["sharded masked"]) < TOLERANCE
    assert found.difference(alone, found.alone["pretrain"][:12]) > 30 * TOLERANCE, "unmasked is another training"


@pytest.mark.checklist(28)
@pytest.mark.parametrize("name", lab.STAGES)
def test_a_whole_stage_on_two_ranks_learns_what_it_learns_on_one(found: Found, name: str) -> None:
    """From the pairs, rollouts or candidates that its ranks sample and judge in parts to the result."""
    alone, both = found.alone[f"stage {name}"], found.ranks[0][f"stage {name}"]
    assert found.ranks[1][f"stage {name}"] == {}, "one rank keeps the folder"
    assert alone["figures"] == both["figures"] and alone["figures"]["skipped_steps"] == 0
    assert len(alone["losses"]) == alone["figures"]["steps"] > 14
    scale = max(abs(loss) for loss in alone["losses"])  # GRPO's own loss is about 0, since advantages are
    assert found.apart(alone["losses"], both["losses"]) < TOLERANCE * scale
    assert found.apart(alone["losses"], found.ranks[0][f"own part {name}"]["losses"]) > 100 * TOLERANCE * scale


@pytest.mark.checklist(28)
@pytest.mark.mutation("the seed of a reply depends on the rank", *lab.SEED_OF_RANK)
def test_every_reply_of_a_run_is_the_same_whichever_rank_draws_it(found: Found, mutation: Any) -> None:
    """PPO whole: its two ranks draw every other reply of a rollout each. The mutation was applied in both ranks too."""
    name = lab.SEEDED_STAGE
    alone, both = (
        found.alone[f"stage {name}"]["rollouts"],
        found.ranks[0][f"seed of rank {name}" if mutation else f"stage {name}"]["rollouts"],
    )
    assert len(alone) == 4 and len({reply for rollout in alone for reply in rollout["replies"]}) > 16
    for one, other in zip(alone, both, strict=True):
        assert one["replies"] == other["replies"]
        assert found.apart(one["means"], other["means"]) < TOLERANCE


def test_dpo_learns_the_same_with_its_weights_spread(found: Found) -> None:
    name = lab.SHARDED_STAGE
    assert (
        found.difference(found.alone[f"stage {name}"]["losses"], found.ranks[0][f"sharded {name}"]["losses"])
        < TOLERANCE
    )


@pytest.mark.parametrize("wrong", ["mean_of_means", "own_part"])
def test_another_division_of_the_gradient_is_noticed(found: Found, wrong: str) -> None:
    """The mean of the ranks' means, and a rank that divides by its own weight."""
    assert found.difference(found.alone["sft"][:12], found.ranks[0][wrong]) > 100 * TOLERANCE


def test_recomputed_activations_and_short_formats_work_on_two_ranks(found: Found) -> None:
    assert found.difference(found.alone["recomputed"], found.ranks[0]["recomputed"]) < TOLERANCE
    assert found.difference(found.alone["recomputed"], found.alone["sft"][:10]) < TOLERANCE
    assert found.difference(found.alone["bf16"], found.ranks[0]["bf16"]) < 5e-3  # the products are rounded to 8 bits
    assert found.difference(found.alone["bf16"], found.alone["sft"][:10]) > TOLERANCE
    assert found.difference(found.alone["fp16"], found.ranks[0]["fp16"]) < 1e-3
    assert found.difference(found.alone["fp16"], found.alone["sft"][:10]) > 1e-7


@pytest.mark.checklist(17)
def test_a_rollout_is_whitened_over_all_ranks(found: Found) -> None:
    assert found.difference(found.alone["observed"]["advantages"], found.ranks[0]["observed"]["advantages"]) < 1e-4
    whole = found.alone["whitened"]["over_all"]
    for number, rank in enumerate(found.ranks):
        assert found.difference(whole[number::2], rank["whitened"]["over_all"]) < TOLERANCE
        assert found.difference(whole[number::2], rank["whitened"]["alone"]) > 1e-3, (
            "each half by itself is another thing"
        )


@pytest.mark.checklist(25)
def test_every_rank_gives_a_rollout_up_at_the_same_update(found: Found) -> None:
    alone, ranks = found.alone["observed"], [rank["observed"] for rank in found.ranks]
    assert alone["given_up"] == ranks[0]["given_up"] == ranks[1]["given_up"]
    assert alone["given_up"][-1] > 1 and alone["iteration"] == ranks[0]["iteration"] == ranks[1]["iteration"]
    own = [[total > 0.002 * tokens for total, tokens in rank["own"]] for rank in ranks]
    assert own[0] != own[1], "by what each met itself the two would have parted"


@pytest.mark.parametrize("kind", ["pretrain", "ppo", "sft"])
def test_a_run_goes_on_from_two_ranks_to_one_and_back(found: Found, kind: str) -> None:
    """sft with its weights spread over the two ranks, whole on the one."""
    assert found.difference(found.alone["resumed"][kind], found.ranks[0]["resumed"][kind]) < TOLERANCE


@pytest.mark.parametrize("kind", ["pretrain", "sft", "reward"])
def test_weights_spread_over_ranks_give_the_same_curve(found: Found, kind: str) -> None:
    assert found.difference(found.alone[kind][:12], found.ranks[0][f"sharded {kind}"]) < TOLERANCE


def test_spread_weights_can_be_recomputed_too(found: Found) -> None:
    assert found.difference(found.alone["sft"][:12], found.ranks[0]["sharded recomputed"]) < TOLERANCE


def test_muon_on_a_part_of_a_matrix_is_noticed(found: Found) -> None:
    assert found.difference(found.alone["sft"][:12], found.ranks[0]["muon on a shard"]) > 30 * TOLERANCE
