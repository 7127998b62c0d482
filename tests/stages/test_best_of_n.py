"""Best of n by hand, and the stage that learns from the best replies."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.cli.main import main
from duihua.data.records import LeftOut
from duihua.errors import ConfigError, DataError
from duihua.models.bundle import ModelCard, load_bundle, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages import rejection_sampling
from duihua.stages.best_of_n import Candidates, best_weights, kl_bound, sample_candidates
from duihua.stages.configs.rejection_sampling import RejectionSamplingConfig
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.context import StageContext
from duihua.stages.rejection_sampling import best_examples
from duihua.stages.replies import Prompt, Reply
from duihua.training.config import OptimizerConfig, TrainerConfig


def candidates(scores: list[list[float]], ended: list[list[bool]] | None = None) -> Candidates:
    flags = ended or [[True] * len(row) for row in scores]
    prompts = [Prompt(i, [{"role": "user", "content": str(i)}], [7, 8], "s") for i in range(len(scores))]
    replies = [[Reply([20 + n, 1], [0.0, 0.0], flag) for n, flag in enumerate(row)] for row in flags]
    return Candidates(prompts, replies, torch.tensor(scores))


def test_the_bound_of_the_kl_is_known_beforehand() -> None:
    assert kl_bound(1) == 0.0
    assert kl_bound(4) == pytest.approx(math.log(4) - 0.75)


def test_the_bound_is_the_kl_where_no_two_replies_tie() -> None:
    """Over 2,000 equally likely replies in the judge's order, the best of n has a distribution that can be written down."""
    replies, n = 2000, 4
    below = torch.arange(replies + 1, dtype=torch.float64) / replies
    best = below[1:] ** n - below[:-1] ** n
    kl = float((best * (best * replies).log()).sum())
    assert kl == pytest.approx(kl_bound(n), abs=2e-3)
    assert kl <= kl_bound(n)


def test_the_curve_is_the_mean_over_all_choices_of_m() -> None:
    scores = [[3.0, -1.0, 2.0, 5.0], [0.0, 0.0, 1.0, -2.0]]
    found = candidates(scores).curve()
    for m in range(1, 5):
        means = [sum(max(chosen) for chosen in itertools.combinations(row, m)) / math.comb(4, m) for row in scores]
        assert found[m - 1]["reward"] == pytest.approx(sum(means) / 2)
        assert found[m - 1]["kl_bound"] == kl_bound(m)
    assert [row["reward"] for row in found] == sorted(row["reward"] for row in found)
    assert all(sum(best_weights(7, m)) == pytest.approx(1.0) for m in range(1, 8))


def test_the_best_is_the_first_of_equals_and_may_have_to_have_ended() -> None:
    found = candidates([[1.0, 4.0, 4.0], [2.0, 3.0, 1.0]], [[True, False, True], [False, False, False]])
    assert found.best() == [1, 1]
    assert found.best(ended_only=True) == [2, None]


def test_what_is_not_learnt_from_is_counted() -> None:
    left_out = LeftOut()
    found = candidates([[1.0, 4.0], [2.0, 3.0], [0.5, 0.1]], [[True, True], [False, False], [True, True]])
    examples = best_examples(found, 1.0, left_out)
    assert [example.token_ids.tolist() for example in examples] == [[7, 8, 21, 1]]
    assert examples[0].loss_mask.tolist() == [False, False, True, True], "the stop token is learnt"
    assert left_out.counts == {"no sampled reply ended": 1, "best reply below the least score": 1}
    assert len(best_examples(found, None, LeftOut())) == 2


def test_candidates_belong_to_their_prompts_and_have_seeds_of_their_own(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def sample(prompts: Any, seeds: Any) -> list[Reply]:
        asked.extend((prompt.index, seed) for prompt, seed in zip(prompts, seeds, strict=True))
        return [Reply([prompt.index, 1], [0.0, 0.0], True) for prompt in prompts]

    def score(prompts: Any, replies: Any) -> torch.Tensor:
        return torch.tensor([float(reply.ids[0]) for reply in replies])

    prompts = [Prompt(i, [{"role": "user", "content": str(i)}], [7]) for i in range(3)]
    found = sample_candidates(sample, score, prompts, 2, seed=1, folder=tmp_path, key="a")
    assert found.scores_pn.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert len({seed for _, seed in asked}) == 6
    sample_candidates(sample, score, prompts, 2, seed=1, folder=tmp_path, key="a")
    assert len(asked) == 6, "they are kept"


# -- the command and the stage ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundles(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("best_of_n")
    lab.policy_bundle(folder / "sft")
    save_bundle(
        folder / "reward", ScoredDecoder(lab.decoder()).initialise_score(3), lab.tokenizer, ModelCard("r", "reward")
    )
    lab.conversations(folder, 200)
    return folder


def test_the_command_prints_the_curve_and_writes_all_replies(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["best-of-n", str(bundles / "sft"), str(bundles / "reward"), "--n", "4", "--reply-tokens", "6"]
    file = tmp_path / "replies.jsonl"
    assert main([*words, "--prompt", "red cat", "--prompt", "dog", "--output", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["n"] for row in found["curve"]] == [1, 2, 3, 4]
    assert found["curve"][3]["kl_bound"] == pytest.approx(math.log(4) - 0.75)
    rewards = [row["reward"] for row in found["curve"]]
    assert rewards == sorted(rewards) and rewards[0] < rewards[-1]
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == ["red cat", "dog"]
    assert all(row["best_score"] == max(row["scores"]) and len(row["texts"]) == 4 for row in rows)
    source = str(bundles / "conversations.jsonl")
    assert main([*words, "--source", source, "--count", "4", "--prompt-tokens", "40"]) == 0
    assert "KL at most" in capsys.readouterr().out
    assert main([*words, "--prompt", "dog"]) == 0
    shown = capsys.readouterr().out
    assert ", 1 prompt\n" in shown and "nan" not in shown and "standard error" not in shown
    assert main([*words, "--prompt", "dog", "--json"]) == 0
    assert "NaN" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "from one place"),
        (["--prompt", "a", "--source", "tiny-chat"], "from one place"),
        (["--prompt", "a", "--temperature", "0"], "likeliest reply"),
        (["--prompt", "a", "--n", "0"], "at least 1"),
        (["--prompt", "a", "--reply-tokens", "90"], "context"),
        (["--prompt", "word " * 200, "--reply-tokens", "4", "--prompt-tokens", "20"], "Shorten"),
    ],
)
def test_the_command_names_what_is_wrong(
    bundles: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["best-of-n", str(bundles / "sft"), str(bundles / "reward"), *words]) == 2
    assert message in capsys.readouterr().err


def stage(lab: Any, bundles: Path, folder: Path, **changes: Any) -> tuple[RejectionSamplingConfig, StageContext]:
    config = RejectionSamplingConfig(
        sources=(lab.conversations(folder, 200),), candidates=4, train_prompts=24, heldout_prompts=8, prompt_tokens=48,
        reply_tokens=12, samples=2, epochs=2.0, batch_tokens=256, micro_batch_tokens=256,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=2e-3, beta1=0.9, beta2=0.95, epsilon=1e-8),
        trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9),
    )  # fmt: skip
    inputs = {"policy": ending_policy(lab, folder / "sft"), "reward": bundles / "reward"}
    return dataclasses.replace(config, **changes), StageContext(
        folder / "best", inputs, data_directory=folder, seed=4, threads=1
    )


def ending_policy(lab: Any, directory: Path) -> Path:
    """A random policy that likes to stop: its stop token's row of the head is the mean direction of nothing else."""
    decoder = lab.decoder()
    with torch.no_grad():
        decoder.final_norm.weight.fill_(1.0)
        decoder.head.weight[lab.tokenizer.im_end_id] = 0.15 * torch.randn(
            32, generator=torch.Generator().manual_seed(5)
        )
    save_bundle(directory, decoder, lab.tokenizer, ModelCard("tiny", "sft"))
    return directory


def test_the_stage_learns_from_its_best_replies(lab: Any, bundles: Path, tmp_path: Path) -> None:
    config, context = stage(lab, bundles, tmp_path)
    result = rejection_sampling.run(config, context, reward=lambda messages, text: float(len(text) < 4))
    found = json.loads((tmp_path / "best" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert 0 < found["kept"] <= 24 and found["kept"] + found["left_out"]["total"] >= 24
    assert found["curve"][-1]["reward"] >= found["curve"][0]["reward"]
    assert {"reward_gain", "kl_nats", "length", "samples", "steps", "loss"} <= set(found)
    assert result.bundle is not None and load_bundle(result.bundle).kind == "policy"


def test_a_killed_stage_ends_with_the_same_bits(lab: Any, bundles: Path, tmp_path: Path, killed: Any) -> None:
    config, context = stage(lab, bundles, tmp_path)
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, checkpoint_steps=1))
    rejection_sampling.run(config, context)
    other = dataclasses.replace(context, directory=tmp_path / "killed")
    with killed(rejection_sampling, "sft_loss", 2):
        rejection_sampling.run(config, other)
    rejection_sampling.run(config, other)
    whole = (context.directory / "model.safetensors").read_bytes()
    assert (other.directory / "model.safetensors").read_bytes() == whole


def test_faults_are_named(lab: Any, bundles: Path, tmp_path: Path) -> None:
    config, context = stage(lab, bundles, tmp_path)
    with pytest.raises(DataError, match="good enough"):
        rejection_sampling.run(dataclasses.replace(config, least_score=1e9), context)
    with pytest.raises(ConfigError, match="length"):
        rejection_sampling.run(dataclasses.replace(config, length=20), context)
    with pytest.raises(DataError, match="no sum"):
        rejection_sampling.run(dataclasses.replace(config, rules=(RuleConfig(),)), context)
    with pytest.raises(ConfigError, match="no choice"):
        dataclasses.replace(config, candidates=1)
