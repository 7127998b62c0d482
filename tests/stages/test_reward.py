"""The reward model: loss, head, where it reads, how it is measured, and the stage as a whole."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.config import build
from duihua.data.pairs import Exchange
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError, DataError
from duihua.models.bundle import load_bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages import reward, stage_trainer
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.context import StageContext
from duihua.stages.encoded_pairs import Pair
from duihua.stages.prompts import encode_pair_side, require_stop_token
from duihua.stages.replies import Reply
from duihua.stages.reward import bradley_terry, normalise
from duihua.stages.reward_measures import (
    calibration_curve,
    calibration_error,
    correlation,
    length_statistics,
    margin_histogram,
    measure,
    share_longer,
)
from duihua.stages.reward_pairs import (
    PairData,
)
from duihua.stages.reward_probes import PROBES, probe
from duihua.stages.scoring import closed_row, end_scores, pad_rows, reward_scorer, score_rows
from duihua.text.chat_template import ChatTemplate
from duihua.training.config import OptimizerConfig


def torch_start(_: object, self: ScoredDecoder, seed: int) -> ScoredDecoder:
    """As torch starts a linear layer: uniform within 1/sqrt(d), a deviation of 1/sqrt(3d)."""
    torch.manual_seed(seed)
    self.score.reset_parameters()
    return self


def random_trunk(right: Any, self: ScoredDecoder, seed: int) -> ScoredDecoder:
    self.decoder.initialise(seed + 17)
    found: ScoredDecoder = right(self, seed)
    return found


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.checklist(5)
@pytest.mark.mutation(
    "the worse reply is the one that gains",
    "duihua.stages.reward:bradley_terry",
    lambda right, chosen, rejected, *rest: right(rejected, chosen, *rest),
)
def test_loss_is_ln_2_at_equality_and_known_values_elsewhere() -> None:
    losses = bradley_terry(torch.tensor([0.3, 2.0, -1.0]), torch.tensor([0.3, 0.0, 1.0]))
    assert losses.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(2))])


@pytest.mark.checklist(5)
def test_gradient_of_the_loss_is_minus_sigmoid_of_the_reversed_difference() -> None:
    chosen, rejected = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.5, -1.0], [0.2, 1.0]))
    bradley_terry(chosen, rejected).sum().backward()
    expected = -torch.sigmoid(rejected - chosen).detach()
    assert chosen.grad is not None and rejected.grad is not None
    torch.testing.assert_close(chosen.grad, expected)
    torch.testing.assert_close(rejected.grad, -expected)
    torch.testing.assert_close(chosen.grad, torch.tensor([-0.42555748, -0.88079708], dtype=torch.float64))


@pytest.mark.checklist(5)
def test_loss_stays_finite_for_hopeless_pairs_and_swapped_pairs_lose() -> None:
    assert float(bradley_terry(torch.tensor([-500.0]), torch.tensor([500.0]))) == pytest.approx(1000.0)
    right, swapped = (float(bradley_terry(torch.tensor([a]), torch.tensor([-a]))) for a in (1.0, -1.0))
    assert right < math.log(2) < swapped


@pytest.mark.checklist(5)
def test_margin_and_centering() -> None:
    one, two = torch.tensor([2.0]), torch.tensor([1.0])
    assert float(bradley_terry(one, two, margin=1.0)) == pytest.approx(math.log(2))
    plain = float(bradley_terry(one, two))
    assert float(bradley_terry(one, two, centering=0.1)) == pytest.approx(plain + 0.1 * 9.0)


# -- the head and where it is read ------------------------------------------------------------------------------------


@pytest.mark.checklist(3)
@pytest.mark.mutation(
    "the head starts as torch starts a linear layer", "duihua.models.heads:ScoredDecoder.initialise_score", torch_start
)
def test_head_starts_with_the_papers_deviation_and_has_no_bias(lab: Any) -> None:
    network = ScoredDecoder(lab.decoder())
    weights = torch.cat([network.initialise_score(seed).score.weight.flatten().clone() for seed in range(200)])
    expected = 1 / math.sqrt(32 + 1)
    assert float(weights.detach().std()) == pytest.approx(expected, rel=0.03)
    assert abs(float(weights.detach().mean())) < 4 * expected / math.sqrt(len(weights))
    assert ScoredDecoder(lab.decoder()).score.bias is None


@pytest.mark.checklist(3)
def test_initial_rewards_have_variance_about_1(lab: Any) -> None:
    """The final norm gives vectors of mean square 1: their product with N(0, 1/(d+1)) weights has variance near 1."""
    rows = [prompt.ids for prompt in lab.prompts(8)]
    scores = torch.cat(
        [score_rows(ScoredDecoder(lab.decoder(s)).initialise_score(s), rows, lab.tokenizer.pad_id) for s in range(60)]
    )
    assert 0.5 < float(scores.var()) < 2.0
    assert abs(float(scores.mean())) < 0.5


@pytest.mark.checklist(6)
@pytest.mark.mutation(
    "the reward is read in the last column, pads or not",
    "duihua.stages.scoring:end_scores",
    lambda right, network, ids, lengths: network(ids)[:, -1],
)
def test_reward_does_not_depend_on_pads_their_side_or_batch_mates(lab: Any) -> None:
    network = ScoredDecoder(lab.decoder()).initialise_score(0).eval()
    rows = [prompt.ids for prompt in lab.prompts(4)]
    alone = torch.stack([network(torch.tensor([row]))[0, -1] for row in rows])
    ids, lengths = pad_rows(rows, lab.tokenizer.pad_id)
    together = end_scores(network, ids, lengths)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    width = ids.shape[1]
    left = torch.tensor([[lab.tokenizer.pad_id] * (width - len(row)) + row for row in rows])
    for side_ids, mask in (
        (ids, torch.arange(width)[None] < lengths[:, None]),
        (left, torch.arange(width)[None] >= (width - lengths)[:, None]),
    ):
        torch.testing.assert_close(network.last_score(side_ids, mask.long()), alone, rtol=1e-4, atol=1e-5)
    last_column = network(ids)[:, -1]
    assert not torch.allclose(last_column, alone, atol=1e-2), "reading the last column, pads or not, must not pass"


@pytest.mark.checklist(6)
def test_a_side_ends_with_the_stop_token_of_the_reply(lab: Any) -> None:
    template = ChatTemplate(lab.tokenizer)
    prompt = [{"role": "user", "content": "name red"}]
    ids, reply = encode_pair_side(prompt, "blue dog", template)
    assert ids[-1] == lab.tokenizer.im_end_id
    opening = template.encode(prompt, add_generation_prompt=True).ids
    assert ids[:-reply] == opening
    assert lab.tokenizer.decode(ids[-reply:]) == "blue dog"


@pytest.mark.checklist(6)
def test_a_cut_reply_is_closed_for_the_reward_model(lab: Any) -> None:
    stop = lab.tokenizer.im_end_id
    assert closed_row([1, 2], Reply([5, stop], [0.0, 0.0], True), lab.tokenizer) == [1, 2, 5, stop]
    assert closed_row([1, 2], Reply([5, 6], [0.0, 0.0], False), lab.tokenizer) == [1, 2, 5, 6, stop]


# -- pairs and batches ------------------------------------------------------------------------------------------------


# -- measuring --------------------------------------------------------------------------------------------------------


@pytest.mark.checklist(7)
@pytest.mark.mutation(
    "the scores are centred and not scaled",
    "duihua.stages.reward:normalise",
    lambda right, scores, data: (
        dataclasses.replace((found := right(scores, data))[0], standard_deviation=1.0),
        found[1],
    ),
)
def test_normalisation_gives_mean_0_and_deviation_1_and_is_checked() -> None:
    generator = torch.Generator().manual_seed(0)
    data = PairData(normalising=[[i] for i in range(500)], verifying=[[i] for i in range(500, 1000)])
    values = 7.0 + 3.0 * torch.randn(1000, generator=generator)
    found, checked = normalise(lambda rows: values[torch.tensor([row[0] for row in rows])], data)
    assert found.mean == pytest.approx(7.0, abs=0.5)
    assert found.standard_deviation == pytest.approx(3.0, abs=0.4)
    other = checked["verification"]
    assert abs(other["mean"]) < 3 * other["mean_standard_error"]
    assert abs(other["std"] - 1) < 3 * other["std_standard_error"]
    shifted = torch.cat([values[:500], values[500:] + 1.5])
    wrong = normalise(lambda rows: shifted[torch.tensor([row[0] for row in rows])], data)[1]["verification"]
    assert abs(wrong["mean"]) > 3 * wrong["mean_standard_error"], "replies of another policy must show"


def test_a_reward_that_never_varies_is_refused() -> None:
    with pytest.raises(DataError, match="same reward"):
        normalise(lambda rows: torch.ones(len(rows)), PairData(normalising=[[1], [2]]))


def test_headline_accuracy_leaves_off_topic_pairs_out() -> None:
    kinds = ["human", "human", "sampled", "sampled", "off_topic", "off_topic"]
    pairs = [Pair([10 + i], [20 + i], kind, 5 + i, 5, "s", "en") for i, kind in enumerate(kinds)]
    right = [1.0, -1.0, 1.0, 1.0, 1.0, 1.0]
    score = {10 + i: value for i, value in enumerate(right)} | {20 + i: 0.0 for i in range(6)}
    found = measure(lambda rows: torch.tensor([score[row[0]] for row in rows]), pairs)
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (0.75, 4)
    assert {kind: of["value"] for kind, of in found["kinds"].items()} == {
        "human": 0.5, "sampled": 1.0, "off_topic": 1.0,
    }  # fmt: skip
    assert found["accuracy"]["low"] < 0.75 < found["accuracy"]["high"]
    assert all(of["description"] and of["description_zh"] for of in found["kinds"].values())


def test_a_tie_is_no_success_and_no_pairs_give_no_value() -> None:
    found = measure(lambda rows: torch.zeros(len(rows)), [Pair([1, 1], [2], "human", 2, 1, "s", "en")] * 3)
    assert found["accuracy"]["value"] == 0.0
    empty = measure(lambda rows: torch.zeros(len(rows)), [])
    assert empty["accuracy"]["value"] is None
    json.dumps(empty, allow_nan=False)


def test_calibration_error_by_hand() -> None:
    """Confidence 0.9 on ten pairs: nine right is calibrated (0), five right is off by 0.4."""
    logit = math.log(9.0)
    assert calibration_error(torch.tensor([logit] * 9 + [-logit])) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(torch.tensor([logit] * 5 + [-logit] * 5)) == pytest.approx(0.4, abs=1e-6)


def test_calibration_curve_says_how_sure_and_how_often_right() -> None:
    """Four pairs at confidence 7/8 of which three are right, two at 5/8 of which one is: two bins, each off by 1/8."""
    sure, unsure = math.log(7.0), math.log(5 / 3)
    differences = torch.tensor([sure, sure, sure, -sure, unsure, -unsure], dtype=torch.float64)
    curve = calibration_curve(differences)
    found = [(round(each["confidence"], 6), each["right"], each["n"]) for each in curve]
    assert found == [(0.625, 0.5, 2), (0.875, 0.75, 4)]
    assert calibration_error(differences) == pytest.approx(0.125)
    assert calibration_curve(-differences) != curve, "a model that is wrong as often must not look the same"


def test_margins_are_counted_in_steps_of_half_their_size() -> None:
    """Margins -2, 2, 2, 2 have a root mean square of 2, so the steps are 1 wide from -5 to 5."""
    found = margin_histogram(torch.tensor([-2.0, 2.0, 2.0, 2.0]))
    assert [(each["low"], each["n"]) for each in found if each["n"]] == [(-2.0, 1), (2.0, 3)]
    assert (found[0]["low"], found[-1]["high"]) == (-5.0, 5.0)
    assert sum(each["n"] for each in margin_histogram(torch.tensor([0.0, 100.0, -1.0]))) == 3
    assert margin_histogram(torch.zeros(0)) == []


def test_replies_of_one_length_favour_neither_side() -> None:
    """Lengths (3, 2), (2, 3) and twice (2, 2): one longer, one shorter, two alike make one half."""
    pairs = [Pair([1], [2], "human", a, b, "s", "en") for a, b in ((3, 2), (2, 3), (2, 2), (2, 2))]
    assert share_longer(pairs) == 0.5
    assert share_longer(pairs[:1]) == 1.0
    assert share_longer([]) == 0.5
    (row,) = length_statistics(pairs)
    assert (row["n"], row["chosen_tokens"], row["rejected_tokens"], row["chosen_is_longer"]) == (4, 2.25, 2.25, 0.5)


def test_correlation_by_hand() -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    assert correlation(x, 5 - 2 * x) == pytest.approx(-1.0)
    assert correlation(x, torch.tensor([1.0, 0.0, 1.0])) == pytest.approx(0.0)
    assert correlation(x, torch.ones(3)) == 0.0


@pytest.mark.checklist(29)
@pytest.mark.mutation(
    "a probe spoils nothing",
    "duihua.stages.reward_probes:PROBES",
    lambda right: {**right, "longer": lambda exchange: exchange.reply},
)
def test_probes_spoil_replies_and_count_what_the_model_prefers() -> None:
    english = Exchange([{"role": "user", "content": "what is red"}], "red is a warm color of fire", "s", "en")
    chinese = Exchange([{"role": "user", "content": "红色是什么"}], "红色是火的颜色", "s", "zh")
    for exchange in (english, chinese):
        spoilt = {name: spoil(exchange) for name, spoil in PROBES.items()}
        assert len(set(spoilt.values()) | {exchange.reply}) == len(PROBES) + 1
        assert sorted(spoilt["word_salad"].replace(" ", "")) == sorted(exchange.reply.replace(" ", ""))
    by_length = probe([english, chinese], lambda items: [float(len(text)) for _, text in items])
    assert by_length["longer"]["value"] == 0.0, "a judge of length prefers the reply said twice"
    assert by_length["cut_short"]["value"] == 1.0
    assert "off_topic" not in by_length, "neither language has another prompt here"
    green = Exchange([{"role": "user", "content": "what is green"}], "green is the color of grass", "s", "en")
    on_topic = probe([english, green], lambda items: [float(e.prompt[0]["content"][8:] in text) for e, text in items])
    assert (on_topic["off_topic"]["value"], on_topic["off_topic"]["n"]) == (1.0, 2)
    assert on_topic["prompt_copy"]["value"] == 0.0, "a judge of words sees nothing wrong in a copy of the prompt"


# -- the whole stage --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardConfig, StageContext, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reward")
    policy = lab.policy_bundle(folder / "sft")
    config = lab.reward_config(folder)
    context = StageContext(folder / "reward", {"policy": policy}, data_directory=folder / "data", seed=2, threads=1)
    return config, context, reward.run(config, context).metrics


def test_the_stage_learns_and_reports_each_kind(trained: Any) -> None:
    config, context, metrics = trained
    assert {
        "steps", "accuracy", "kinds", "normalisation", "calibration_error", "length_correlation", "terms", "seconds",
    } <= set(metrics)  # fmt: skip
    assert metrics["accuracy"]["value"] > 0.8
    assert metrics["accuracy"]["low"] > 0.5
    assert all(metrics["kinds"][kind]["n"] > 0 for kind in ("human", "sampled", "off_topic"))
    assert metrics["steps"] == math.ceil(sum(metrics["pairs"]["train"].values()) / config.batch_pairs)
    assert sum(of["total"] for of in metrics["cut"].values()) == 1, "the over-long pair is counted"
    assert metrics["length"] == 64, "the model's context, where the config allows more"
    other = metrics["normalisation"]["verification"]
    assert abs(other["mean"]) < 3 * other["mean_standard_error"]
    assert abs(other["std"] - 1) < 3 * other["std_standard_error"]
    assert (
        json.loads((context.directory / "result.json").read_text(encoding="utf-8"))["metrics"].keys() == metrics.keys()
    )


@pytest.mark.checklist(7)
def test_the_bundle_holds_head_and_normalisation_and_the_scorer_uses_them(trained: Any, lab: Any) -> None:
    _, context, metrics = trained
    bundle = load_bundle(context.directory)
    assert bundle.kind == "reward"
    stored = json.loads((context.directory / "config.json").read_text(encoding="utf-8"))["duihua"]["normalisation"]
    assert stored["mean"] == metrics["normalisation"]["mean"]
    assert bundle.reward.score.bias is None
    prompts = lab.prompts(3)
    replies = [Reply([40, 41, lab.tokenizer.im_end_id], [0.0] * 3, True)] * 3
    raw = score_rows(bundle.reward, [[*p.ids, *replies[0].ids] for p in prompts], lab.tokenizer.pad_id)
    normal = reward_scorer(bundle)(prompts, replies)
    expected = (raw - metrics["normalisation"]["mean"]) / metrics["normalisation"]["std"]
    torch.testing.assert_close(normal, expected)
    assert not torch.allclose(normal, raw, atol=1e-2)


@pytest.mark.checklist(2)
@pytest.mark.mutation(
    "the trunk starts from random numbers", "duihua.models.heads:ScoredDecoder.initialise_score", random_trunk
)
def test_the_trunk_starts_from_the_sft_model(lab: Any, tmp_path: Path, monkeypatch: Any) -> None:
    seen: dict[str, Any] = {}
    real = stage_trainer.Trainer

    def watching(network: Any, *rest: Any, **named: Any) -> Any:
        seen["trunk"] = {name: weight.clone() for name, weight in network.decoder.state_dict().items()}
        return real(network, *rest, **named)

    monkeypatch.setattr(stage_trainer, "Trainer", watching)
    policy = lab.policy_bundle(tmp_path / "sft", seed=3)
    config = lab.reward_config(tmp_path, conversations=())
    reward.run(config, StageContext(tmp_path / "reward", {"policy": policy}, data_directory=tmp_path, threads=1))
    start = load_bundle(policy).policy.state_dict()
    for name, weight in seen["trunk"].items():
        if name != "head.weight":  # the token head is not part of a reward model
            assert torch.equal(weight, start[name]), name
    end = load_bundle(tmp_path / "reward").reward.decoder.state_dict()
    assert not torch.equal(end["embedding.weight"], start["embedding.weight"]), "and it moves from there"


def adamw(right: Any, self: RewardConfig, *arguments: Any, **named: Any) -> None:
    right(self, *arguments, **named)
    object.__setattr__(self, "optimizer", OptimizerConfig(kind="adamw", learning_rate=1e-3))


@pytest.mark.checklist(2)
@pytest.mark.mutation(
    "the reward model learns by another optimizer than the SFT model that it continues",
    "duihua.stages.configs.reward:RewardConfig.__init__",
    adamw,
)
def test_the_reward_model_learns_by_the_optimizer_and_the_rates_of_the_sft_model() -> None:
    assert RewardConfig().optimizer == SFTConfig().optimizer


class Killed(BaseException):
    """Stands for kill -9."""


def test_a_killed_stage_ends_with_the_same_bits(trained: Any, tmp_path: Path, monkeypatch: Any) -> None:
    config, context, _ = trained
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, checkpoint_steps=4))
    mine = dataclasses.replace(context, directory=tmp_path / "reward")
    calls = {"left": 13}
    real = reward.Loss.__call__

    def dying(self: Any, network: Any, batch: Any) -> Any:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise Killed
        return real(self, network, batch)

    monkeypatch.setattr(reward.Loss, "__call__", dying)
    with pytest.raises(Killed):
        reward.run(config, mine)
    kept = sorted(path.name for path in (tmp_path / "reward" / "replies").iterdir())
    assert kept
    reward.run(config, mine)
    whole = (context.directory / "model.safetensors").read_bytes()
    assert (tmp_path / "reward" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "above 0"),
        ({"epochs": 0}, "at least 1"),
        ({"margin": -1.0}, "negative"),
        ({"cut_short_pairs": 9, "sampled_pairs": 8}, "cut_short_pairs: 9 pairs"),
        ({"preferences": [], "conversations": []}, "no source"),
        (
            {"preferences": [{"name": "dpo-en"}, {"name": "dpo-zh", "weight": 2.0}]},
            r"preferences\[1\].weight: .*found 2",
        ),
        ({"sampled_pair": 3}, "sampled_pairs"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(RewardConfig, changes)


@pytest.mark.checklist(5)
def test_one_epoch_is_the_default() -> None:
    assert RewardConfig().epochs == 1


def test_a_template_that_ends_no_reply_is_refused_before_anything_is_read(lab: Any, tmp_path: Path) -> None:
    source = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    source += "{% if add_generation_prompt %}assistant: {% endif %}"
    policy = lab.policy_bundle(tmp_path / "sft")
    template = ChatTemplate(load_bundle(policy).tokenizer)
    require_stop_token(template, "here")
    (policy / "chat_template.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(DataError, match="ends no reply with a stop token"):
        require_stop_token(ChatTemplate(load_bundle(policy).tokenizer), "here")
    context = StageContext(tmp_path / "reward", {"policy": policy}, data_directory=tmp_path, threads=1)
    with pytest.raises(DataError, match="ends no reply with a stop token"):
        reward.run(lab.reward_config(tmp_path), context)
    assert not (tmp_path / "reward").exists()


def test_pairs_that_cannot_be_used_are_named_before_anything_is_sampled(lab: Any, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"name {word}", "chosen": "red", "rejected": "red"} for word in ("cat", "dog")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = lab.reward_config(tmp_path, preferences=(SourceConfig(path=str(file), kind="preferences"),))
    context = StageContext(
        tmp_path / "reward", {"policy": lab.policy_bundle(tmp_path / "sft")}, data_directory=tmp_path, threads=1
    )
    with pytest.raises(DataError, match="chosen and rejected are the same"):
        reward.run(config, context)
    assert not (tmp_path / "reward" / "replies").exists(), "no reply was sampled"
    rows = [{"prompt": "name cat", "chosen": "red " * 90, "rejected": "blue " * 90}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = dataclasses.replace(config, conversations=(), long_pairs="leave_out")
    with pytest.raises(DataError, match=r"no pair to learn from: 1 x human pair longer than 64 tokens"):
        reward.run(config, context)


def test_a_weight_is_refused_for_pairs_alone() -> None:
    """Prompts are drawn by weight; pairs are all learnt."""
    weighed = [{"name": "chitchat", "weight": 2.0}]
    assert build(RewardConfig, {"conversations": weighed}).conversations[0].weight == 2.0
    assert build(RewardConfig, {"preferences": [{"name": "dpo-en", "weight": 1.0}]}).preferences[0].name == "dpo-en"
