"""The rollout and the first update, row by row of the alignment checklist, on tiny random decoders."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import duihua.stages.rollout as rollout_module
from duihua.config import build
from duihua.engine import sampling
from duihua.engine.settings import SamplingSettings, require_plain
from duihua.errors import ConfigError, GenerationError, TrainingError
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.stages import agreement
from duihua.stages.actor_critic import (
    ActorCritic,
    Critic,
    ReplyBatch,
    reply_log_probabilities,
    switch_off_dropout,
)
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.ppo import LOSS_METRICS, Loss
from duihua.stages.prompt_order import order_of_prompts
from duihua.stages.replies import Reply, engine_sampler, truncate_at_stop
from duihua.stages.rollout import Rollout
from duihua.stages.rollout_figures import ROLLOUT_METRICS
from duihua.text.chat_template import ChatTemplate
from duihua.training.optimizers import Optimizer

# What the mutations of the checklist put in the place of the right code. `right` is the code itself.


def random_value_head(right: Any, self: ActorCritic, *parts: Any) -> None:
    right(self, *parts)
    if self.value is not None:
        nn.init.normal_(self.value.weight)


def without_stop(right: Any, self: ChatTemplate, *arguments: Any, **named: Any) -> Any:
    found = right(self, *arguments, **named)
    last = max((place for place, inside in enumerate(found.loss_mask) if inside), default=0)
    return dataclasses.replace(
        found, loss_mask=[inside and place != last for place, inside in enumerate(found.loss_mask)]
    )


def reference_follows(right: Any, self: Rollout) -> Any:
    found = right(self)
    self.reference.load_state_dict(self.network.policy.state_dict())
    return found


def mean_of_means(right: Any, self: Loss, network: nn.Module, batch: Any) -> Any:
    parts = right(self, network, batch)
    return parts._replace(sum=parts.sum / parts.weight, weight=1.0)


def decides_alone(right: Any, self: Rollout) -> bool:
    self.reduce = lambda tensor: tensor
    return bool(right(self))


def without_value_coefficient(right: Any, self: Loss, network: nn.Module, batch: Any) -> Any:
    return right(Loss(dataclasses.replace(self.config, value_coefficient=1.0), self.rollout), network, batch)


def without_value_loss(right: Any, self: Loss, network: nn.Module, batch: Any) -> Any:
    return right(Loss(dataclasses.replace(self.config, value_coefficient=0.0), self.rollout), network, batch)


class Stream:
    """One generator for the whole batch, as most engines have it: a number goes to whoever asks next."""

    def __init__(self) -> None:
        self.generator = torch.Generator()

    def begin(self) -> None:
        """As at the start of a run with a seed of its own, so that equal runs are equal."""
        self.generator.manual_seed(0)

    def draw(self, right: Any, seeds_b: torch.Tensor, places_b: torch.Tensor) -> torch.Tensor:
        return torch.rand(seeds_b.shape, generator=self.generator, dtype=torch.float64)


STREAM = Stream()


def first_loss(rollout: Rollout) -> dict[str, float]:
    """Metrics of the first micro-batch, before any update."""
    batch = rollout.next()[0]
    parts = Loss(rollout.config, rollout)(rollout.network, batch)
    return {name: value / weight for name, (value, weight) in parts.metrics.items()}


def all_buffers(rollout: Rollout, rollouts: int) -> list[dict[str, torch.Tensor]]:
    """The buffers of several rollouts of a policy that stands still."""
    made = []
    for _ in range(rollouts):
        rollout.cursor = rollout.config.epochs * rollout.config.minibatches
        rollout.next()
        made.append({name: tensor.clone() for name, tensor in rollout.buffer.items()})
    return made


# -- the first update -------------------------------------------------------------------------------------------------


@pytest.mark.checklist(12, 18)
@pytest.mark.mutation(
    "the old log-probabilities are those of the token before",
    "duihua.stages.ppo_math:policy_loss",
    lambda right, p, old, a, **k: right(p, old.roll(1, dims=1), a, **k),
)
def test_first_update_has_ratio_one_and_kl_exactly_zero(lab: Any) -> None:
    found = first_loss(lab.rollout(lab.config()))
    assert found["ratio"] == 1.0
    assert found["approximate_kl"] == 0.0
    assert found["clip_fraction"] == 0.0
    assert found["kl"] == 0.0, "policy and reference are the same at step 0"


@pytest.mark.checklist(18)
def test_a_shifted_log_probability_is_not_ratio_one(lab: Any) -> None:
    """Negative control: old log-probabilities of the token before."""
    rollout = lab.rollout(lab.config())
    batch = rollout.next()[0]
    batch["logprobs"] = batch["logprobs"].roll(1, dims=1)
    metrics = Loss(rollout.config, rollout)(rollout.network, batch).metrics
    assert metrics["ratio"][0] / metrics["ratio"][1] != 1.0
    assert metrics["approximate_kl"][0] > 0.0


@pytest.mark.checklist(4)
@pytest.mark.mutation(
    "the shared value head starts from random numbers",
    "duihua.stages.actor_critic:ActorCritic.__init__",
    random_value_head,
)
def test_value_is_zero_at_step_0_on_a_shared_trunk(lab: Any) -> None:
    rollout = lab.rollout(lab.config())
    rollout.next()
    assert rollout.buffer["values"].abs().max() == 0.0


@pytest.mark.checklist(4)
@pytest.mark.mutation(
    "the critic starts as the reward model without its normalisation",
    "duihua.stages.actor_critic:Critic.forward",
    lambda right, self, ids, columns: self.reward(ids, columns_br=columns),
)
def test_value_of_a_separate_critic_is_the_normalised_reward_model_at_step_0(lab: Any) -> None:
    reward = ScoredDecoder(lab.decoder(seed=5)).initialise_score(1)
    critic = Critic(copy.deepcopy(reward), mean=0.3, std=2.0)
    rollout = lab.rollout(lab.config(critic="reward"), critic=critic)
    rollout.next()
    buffer = rollout.buffer
    scores = (reward(buffer["token_ids"]) - 0.3) / 2.0
    for row in range(4):
        start, length = int(buffer["prompt_lengths"][row]), int(buffer["reply_mask"][row].sum())
        expected = scores[row, start - 1 : start - 1 + length]
        torch.testing.assert_close(buffer["values"][row, :length], expected, rtol=1e-4, atol=1e-5)
        raw = reward(buffer["token_ids"])[row, start - 1 : start - 1 + length]
        assert not torch.allclose(buffer["values"][row, :length], raw, atol=1e-3), "not normalised must not pass"


# -- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.checklist(21)
@pytest.mark.mutation(
    "any sampling is taken", "duihua.stages.configs.ppo:PPOConfig.__post_init__", lambda right, self: None
)
@pytest.mark.parametrize("field", ["top_k", "top_p", "repetition_penalty"])
def test_configuration_refuses_to_bend_the_sampling(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        build(PPOConfig, {field: 5 if field == "top_k" else 0.9})
    with pytest.raises(GenerationError, match=field):
        require_plain(SamplingSettings(**{field: 5 if field == "top_k" else 0.9}))
    build(PPOConfig, {"temperature": 0.7})


@pytest.mark.checklist(20)
@pytest.mark.mutation(
    "the trainer's log-probabilities leave the temperature out",
    "duihua.nn.head_log_probabilities:head_readings",
    lambda right, hidden, head, targets, *rest: right(hidden, head, targets),
)
def test_sampler_and_trainer_agree_and_a_wrong_temperature_stops_the_run(lab: Any) -> None:
    config = lab.config(temperature=0.7)
    rollout = lab.rollout(config)
    rollout.next()
    place = ROLLOUT_METRICS.index("sampler_difference")
    assert float(rollout.buffer["rollout"][place]) < 1e-5
    policy = rollout.network.policy
    wrong = lab.rollout(config, sampler=lab.sampler(policy, lab.config(temperature=1.0)))
    with pytest.raises(TrainingError, match="disagree"):
        wrong.next()


@pytest.mark.checklist(20)
@pytest.mark.mutation(
    "ten times the rounding is let pass",
    "duihua.stages.agreement:AGREEMENT",
    lambda right: {dtype: 10 * most for dtype, most in right.items()},
)
def test_a_sampler_a_thousandth_too_warm_stops_the_run_and_sharp_logits_do_not(lab: Any) -> None:
    """On a nearly flat policy, whose log-probabilities a wrong temperature moves least (8e-4); and on one 50 times as sharp,
    which rounds most (1e-5)."""
    config, policy = lab.config(), lab.decoder()
    with pytest.raises(TrainingError, match="disagree on a token's") as caught:
        lab.rollout(config, sampler=lab.sampler(policy, lab.config(temperature=1.001))).next()
    assert caught.value.where == "ppo, rollout 0"
    sharp = lab.rollout(config)
    with torch.no_grad():
        sharp.network.policy.head.weight.mul_(50.0)
    sharp.next()
    difference = float(sharp.buffer["rollout"][ROLLOUT_METRICS.index("sampler_difference")])
    assert 0.0 < difference < agreement.AGREEMENT[torch.float32] / 4


def ten_times(right: dict[torch.dtype, float]) -> dict[torch.dtype, float]:
    return {dtype: 10 * most for dtype, most in right.items()}


@pytest.mark.checklist(20)
@pytest.mark.mutation("ten times the mean rounding is let pass", "duihua.stages.agreement:MEAN_AGREEMENT", ten_times)
@pytest.mark.parametrize(
    ("dtype", "sharpness", "temperature"), [(None, 1.0, 1.0001), (torch.bfloat16, 10.0, 1.03)], ids=["fp32", "bf16"]
)
def test_a_temperature_too_small_for_one_token_to_show_stops_the_run_by_the_mean(
    lab: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None, sharpness: float, temperature: float
) -> None:
    """By the largest difference alone it would pass, and so it does once the mean is not looked at."""

    def rolled_out(sampled_at: float) -> float:
        rollout = lab.rollout(lab.config(), dtype=dtype)
        policy = rollout.network.policy
        with torch.no_grad():
            policy.head.weight.mul_(sharpness)
        rollout.sampler = engine_sampler(
            policy, lab.tokenizer, reply_tokens=8, temperature=sampled_at, slots=32, dtype=dtype
        )
        rollout.next()
        return float(rollout.buffer["rollout"][ROLLOUT_METRICS.index("sampler_difference")])

    rounding = 0.025 if dtype else 5e-6  # of bf16 without AVX-512; with it a tenth of that
    assert rolled_out(1.0) < 1.2 * rounding
    with pytest.raises(TrainingError, match=r"disagree on the tokens' .* on average"):
        rolled_out(temperature)
    monkeypatch.setattr(agreement, "MEAN_AGREEMENT", dict.fromkeys(agreement.MEAN_AGREEMENT, 1e9))
    assert rolled_out(temperature) > agreement.AGREEMENT[dtype or torch.float32] / 3


@pytest.mark.checklist(20)
@pytest.mark.parametrize("dtype", list(agreement.AGREEMENT), ids=str)
def test_one_token_may_differ_by_more_than_all_of_them(dtype: torch.dtype) -> None:
    """Rounding moves few tokens far, even where there are few tokens in all; another distribution moves all."""
    most = agreement.AGREEMENT[dtype]
    for tokens in (1, 8, 300):
        sampled = torch.zeros(tokens)
        sampled[0] = 0.99 * most
        found = agreement.check_agreement(sampled, torch.zeros(tokens), dtype, "here")
        assert found == pytest.approx(0.99 * most, rel=1e-6)
    with pytest.raises(TrainingError, match="on average") as caught:
        agreement.check_agreement(torch.full((300,), most / 4), torch.zeros(300), dtype, "here")
    assert caught.value.where == "here"
    sampled[0] = 1.01 * most
    with pytest.raises(TrainingError, match="on a token's"):
        agreement.check_agreement(sampled, torch.zeros(300), dtype, "here")
    with pytest.raises(TrainingError, match="on a token's log-probability by nan"):
        agreement.check_agreement(torch.tensor([0.0, float("nan")]), torch.zeros(2), dtype, "here")


def any_distance(right: float) -> float:
    return 1e9 * right


@pytest.mark.checklist(20)
@pytest.mark.mutation("any distance from fp32 is called rounding", "duihua.stages.agreement:ALIKE", any_distance)
def test_beyond_the_bounds_of_bf16_the_sampler_may_be_as_far_from_fp32_as_the_trainer_is(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deep models round more than the bounds allow; a sampler that is too warm is still found."""
    monkeypatch.setattr(agreement, "AGREEMENT", dict.fromkeys(agreement.AGREEMENT, -1.0))  # always passed
    monkeypatch.setattr(agreement, "TOKEN_ALIKE", 1e9)  # few tokens here: their mean decides
    bf16 = torch.bfloat16

    def rolled_out(sampled_at: float, exact: bool = True) -> float:
        rollout = lab.rollout(lab.config(), dtype=bf16)
        policy = rollout.network.policy
        rollout.sampler = engine_sampler(
            policy, lab.tokenizer, reply_tokens=8, temperature=sampled_at, slots=32, dtype=bf16
        )
        if not exact:
            monkeypatch.setattr(rollout, "_read_in_fp32", None)
        rollout.next()
        return float(rollout.buffer["rollout"][ROLLOUT_METRICS.index("sampler_difference")])

    assert rolled_out(1.0) < 0.05
    with pytest.raises(TrainingError, match=r"from fp32 they are .* away on average"):
        rolled_out(1.1)
    with pytest.raises(TrainingError, match=r"more than -1\.0\. The replies"):
        rolled_out(1.0, exact=False)


@pytest.mark.checklist(20)
def test_fp32_has_no_second_reading_to_be_excused_by() -> None:
    def asked() -> torch.Tensor:
        raise AssertionError("was asked for")

    with pytest.raises(TrainingError, match="disagree"):
        agreement.check_agreement(torch.full((300,), 0.1), torch.zeros(300), None, "here", asked)
    worst = torch.tensor([0.0, 0.5, 0.0])  # the mean alone would let it pass
    with pytest.raises(TrainingError, match="on a token's"):
        agreement.check_agreement(worst, torch.full((3,), 0.15), torch.bfloat16, "here", lambda: torch.zeros(3))


@pytest.mark.checklist(20)
def test_sampler_and_trainer_agree_in_bf16_to_its_rounding(lab: Any) -> None:
    config, policy = lab.config(), lab.decoder()
    sampler = engine_sampler(policy, lab.tokenizer, reply_tokens=8, temperature=1.0, slots=32, dtype=torch.bfloat16)
    rollout = lab.rollout(config, sampler=sampler, dtype=torch.bfloat16)
    rollout.next()
    difference = float(rollout.buffer["rollout"][ROLLOUT_METRICS.index("sampler_difference")])
    assert difference < 0.05
    in_full = reply_log_probabilities(policy, ReplyBatch(*(rollout.buffer[n] for n in PACKED)))
    assert not torch.allclose(in_full.detach(), rollout.buffer["logprobs"], atol=1e-6), "bf16 was really used"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert first_loss(rollout)["kl"] == 0.0


PACKED = ("token_ids", "prompt_lengths", "reply_mask")


@pytest.mark.checklist(20)
def test_log_probabilities_shifted_by_one_stop_the_run(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the column of the token itself instead of the one before it is caught by the first rollout."""

    right = ReplyBatch.columns

    def columns(self: ReplyBatch) -> torch.Tensor:
        return (right(self) + 1).clamp(max=self.token_ids_bt.shape[1] - 1)

    monkeypatch.setattr(ReplyBatch, "columns", columns)
    with pytest.raises(TrainingError, match="disagree"):
        lab.rollout(lab.config()).next()


@pytest.mark.checklist(20)
def test_frequencies_match_the_recorded_log_probabilities_at_a_temperature(lab: Any) -> None:
    """One prompt, 4,000 one-token replies at temperature 0.5: counts fit exp(logprob) by a chi-square over 12 groups."""
    policy, config = lab.decoder(), lab.config(reply_tokens=1, temperature=0.5, slots=256)
    with torch.no_grad():
        policy.head.weight.mul_(4.0)
    prompt = lab.prompts(1)[0]
    n = 4000
    replies = lab.sampler(policy, config)([prompt] * n, list(range(n)))
    logits = policy(torch.tensor([prompt.ids]))[0, -1].detach()

    def chi_square(temperature: float) -> float:
        chances = torch.softmax(logits / temperature, dim=0).double()
        groups = torch.arange(len(chances)) % 12
        expected = torch.zeros(12, dtype=torch.float64).index_add_(0, groups, chances) * n
        seen = torch.zeros(12, dtype=torch.float64)
        for reply in replies:
            seen[reply.ids[0] % 12] += 1
        return float(((seen - expected) ** 2 / expected).sum())

    for reply in replies[:50]:
        recorded = torch.log_softmax(logits / 0.5, dim=0)[reply.ids[0]]
        assert reply.logprobs[0] == pytest.approx(float(recorded), abs=1e-4)
    assert chi_square(0.5) < 31.3, "the 0.1 % point of chi-square with 11 degrees of freedom"
    assert chi_square(1.0) > 31.3, "the wrong temperature must not pass"


@pytest.mark.checklist(28)
def test_reply_seeds_do_not_depend_on_batch_mates(lab: Any) -> None:
    policy, prompts, seeds = lab.decoder(), lab.prompts(8), list(range(8))
    together = lab.sampler(policy, lab.config(slots=8))(prompts, seeds)
    few_slots = lab.sampler(policy, lab.config(slots=2))(prompts, seeds)
    alone = [lab.sampler(policy, lab.config(slots=1))([p], [s])[0] for p, s in zip(prompts, seeds, strict=True)]
    assert [r.ids for r in together] == [r.ids for r in few_slots] == [r.ids for r in alone]
    others = lab.sampler(policy, lab.config(slots=8))(prompts, [s + 100 for s in seeds])
    assert [r.ids for r in others] != [r.ids for r in together]


@pytest.mark.checklist(28)
@pytest.mark.mutation(
    "replies are drawn from one generator of the batch, not from their own seeds",
    "duihua.engine.randomness:uniforms",
    STREAM.draw,
)
def test_same_seed_gives_the_same_trajectory_whatever_the_slots(lab: Any) -> None:
    for one, other in zip(*(texts_of_a_run(lab, slots) for slots in (32, 5)), strict=True):
        assert torch.equal(one, other)


def texts_of_a_run(lab: Any, slots: int) -> list[torch.Tensor]:
    """Prompts and replies of two rollouts."""
    STREAM.begin()
    return [buffer["token_ids"] for buffer in all_buffers(lab.rollout(lab.config(slots=slots)), 2)]


@pytest.mark.checklist(28)
def test_one_generator_for_the_batch_repeats_a_run_of_as_many_slots_and_no_other(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the mutation above is rejected: not because the generator runs on from run to run, but because of the slots."""
    monkeypatch.setattr(sampling, "uniforms", lambda seeds_b, places_b: STREAM.draw(None, seeds_b, places_b))
    first, again, fewer = (texts_of_a_run(lab, slots) for slots in (32, 32, 5))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(first, fewer, strict=True))


@pytest.mark.checklist(28)
@pytest.mark.mutation(
    "the run's seed is no part of a reply's",
    "duihua.engine.randomness:sample_seed",
    lambda right, run, *place: right(0, *place),
)
@pytest.mark.mutation(
    "the iteration is no part of a reply's seed",
    "duihua.engine.randomness:sample_seed",
    lambda right, run, iteration, *place: right(run, 0, *place),
)
@pytest.mark.mutation(
    "two replies to one prompt have one seed",
    "duihua.engine.randomness:sample_seed",
    lambda right, run, iteration, prompt, sample: right(run, iteration, prompt, 0),
)
def test_one_prompt_is_answered_anew_at_every_place_in_every_iteration_and_run(lab: Any) -> None:
    replies = []
    for seed in (1, 2):
        rollout = lab.rollout(lab.config(rollout_prompts=8), prompts=lab.prompts(1), seed=seed)
        for buffer in all_buffers(rollout, 2):
            replies += [tuple(row) for row in buffer["token_ids"].tolist()]
    assert len(set(replies)) == len(replies) == 32


@pytest.mark.checklist(28)
def test_every_prompt_comes_once_a_pass_in_a_new_order() -> None:
    places = order_of_prompts(10, 3, 0, 30)
    passes = [places[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    assert order_of_prompts(10, 3, 7, 6) == places[7:13], "a place depends on itself, not on where the asking began"


# -- ends and masks ---------------------------------------------------------------------------------------------------


@pytest.mark.checklist(10)
@pytest.mark.parametrize(
    ("ids", "stops", "kept", "ended"),
    [
        ([5, 6, 2, 7], (2,), [5, 6, 2], True),
        ([5, 6, 7, 8], (2,), [5, 6, 7, 8], False),
        ([5, 9, 2, 7], (2, 9), [5, 9], True),
        ([5, 6, 7, 8, 2], (2,), [5, 6, 7, 8], False),
        ([2], (2,), [2], True),
    ],
    ids=["stop in the reply", "none", "custom stop first", "stop behind the limit", "stop at once"],
)
def test_replies_end_at_their_first_stop_token(
    ids: list[int], stops: tuple[int, ...], kept: list[int], ended: bool
) -> None:
    assert truncate_at_stop(ids, stops, 4) == (kept, ended)


@pytest.mark.checklist(11)
def test_a_stop_token_inside_the_prompt_does_not_end_a_reply(lab: Any) -> None:
    template = ChatTemplate(lab.tokenizer)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    ids = template.encode(turns, add_generation_prompt=True).ids
    assert any(stop in ids for stop in lab.tokenizer.stop_ids)
    reply, ended = truncate_at_stop([40, 41, 42], lab.tokenizer.stop_ids, 8)
    assert (len(reply), ended) == (3, False)
    assert truncate_at_stop([*ids, *reply], lab.tokenizer.stop_ids, 999)[1], (
        "looking at the prompt too would say 'ended'"
    )


@pytest.mark.checklist(10)
@pytest.mark.mutation(
    "the stop token is no part of the reply",
    "duihua.stages.replies:truncate_at_stop",
    lambda right, ids, stops, limit: (right(ids, stops, limit)[0][:-1] or [40], right(ids, stops, limit)[1]),
)
def test_masks_equal_a_brute_force_loop(lab: Any) -> None:
    rollout = lab.rollout(lab.config())
    rollout.next()
    buffer, stops = rollout.buffer, set(lab.tokenizer.stop_ids)
    for row in range(len(buffer["token_ids"])):
        start = int(buffer["prompt_lengths"][row])
        tokens = buffer["token_ids"][row, start:].tolist()
        expected, over = [], False
        for place in range(buffer["reply_mask"].shape[1]):
            expected.append(not over and place < len(tokens))
            over = over or (place < len(tokens) and tokens[place] in stops)
        length = int(buffer["reply_mask"][row].sum())
        assert buffer["reply_mask"][row].tolist() == [place < length for place in range(len(expected))]
        assert sum(expected) >= length
        assert length == min(sum(expected), rollout.config.reply_tokens)


@pytest.mark.checklist(8)
@pytest.mark.mutation(
    "the pad token is the stop token", "duihua.text.tokenizer:Tokenizer.pad_id", lambda _, self: self.im_end_id
)
@pytest.mark.mutation(
    "the stop token is outside the loss mask", "duihua.text.chat_template:ChatTemplate.encode", without_stop
)
def test_pad_token_is_no_stop_token_and_the_stop_token_is_learnt(lab: Any) -> None:
    tokenizer = lab.tokenizer
    assert tokenizer.pad_id not in tokenizer.stop_ids
    encoded = ChatTemplate(tokenizer).encode(
        [{"role": "user", "content": "red"}, {"role": "assistant", "content": "blue"}]
    )
    learnt = [token for token, inside in zip(encoded.ids, encoded.loss_mask, strict=True) if inside]
    assert learnt[-1] == tokenizer.im_end_id
    assert learnt.count(tokenizer.im_end_id) == 1 < encoded.ids.count(tokenizer.im_end_id), "the user's end is not"


@pytest.mark.checklist(9)
@pytest.mark.mutation(
    "places are counted from the first column, pads included",
    "duihua.models.decoder:Decoder._plan",
    lambda right, self, ids, mask, places, *rest: right(
        self, ids, mask, torch.arange(ids.shape[1]).expand(ids.shape), *rest
    ),
)
def test_left_padded_rows_give_the_logits_of_unpadded_ones_for_rotary_and_learned_positions(lab: Any) -> None:
    rotary = lab.decoder().eval()
    learned = Decoder(dataclasses.replace(rotary.config, positions="learned")).initialise(1).eval()
    learned.load_state_dict(rotary.state_dict(), strict=False)
    rows = [prompt.ids for prompt in lab.prompts(4)]
    width = max(map(len, rows))
    ids = torch.tensor([[lab.tokenizer.pad_id] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    for decoder in (rotary, learned):
        padded = decoder(ids, attention_mask_bt=mask)
        without_mask = decoder(ids)
        differs = 0.0
        for number, row in enumerate(rows):
            alone = decoder(torch.tensor([row]))[0]
            torch.testing.assert_close(padded[number, -len(row) :], alone, rtol=1e-4, atol=1e-5)
            differs = max(differs, float((without_mask[number, -len(row) :] - alone).detach().abs().max()))
        assert differs > 1e-3, "ignoring the mask must not pass"


@pytest.mark.checklist(9)
def test_log_probabilities_do_not_depend_on_batch_mates_or_pads(lab: Any) -> None:
    decoder, prompts = lab.decoder(), [prompt.ids for prompt in lab.prompts(3)]
    replies = [[40, 41, 42], [50], [60, 61]]
    together = reply_log_probabilities(decoder, ReplyBatch.pack(prompts, replies, lab.tokenizer.pad_id)).detach()
    for row in range(3):
        full = decoder(torch.tensor([prompts[row] + replies[row]])).detach().log_softmax(dim=-1)[0]
        for step, token in enumerate(replies[row]):
            expected = float(full[len(prompts[row]) + step - 1, token])
            assert float(together[row, step]) == pytest.approx(expected, abs=1e-5)
        assert together[row, len(replies[row]) :].abs().sum() == 0.0


# -- the four roles ---------------------------------------------------------------------------------------------------


@pytest.mark.checklist(1)
@pytest.mark.mutation("the reference follows the policy", "duihua.stages.rollout:Rollout.next", reference_follows)
def test_reference_stays_bit_identical_and_the_reward_model_gets_no_gradient(lab: Any, tmp_path: Path) -> None:
    reward = ScoredDecoder(lab.decoder(seed=5)).initialise_score(1)
    judge_before = copy.deepcopy(reward.state_dict())

    def score(prompts: Any, replies: Any) -> torch.Tensor:
        rows = [[*p.ids, *r.ids] for p, r in zip(prompts, replies, strict=True)]
        return torch.stack([reward(torch.tensor([row]))[0, -1] for row in rows])

    rollout = lab.rollout(lab.config(), scorer=score)
    before = copy.deepcopy(rollout.reference.state_dict())
    policy_before = copy.deepcopy(rollout.network.policy.state_dict())
    lab.trainer(rollout, tmp_path, steps=6).run()
    assert all(torch.equal(before[name], now) for name, now in rollout.reference.state_dict().items())
    assert all(torch.equal(judge_before[name], now) for name, now in reward.state_dict().items())
    assert all(weight.grad is None for weight in reward.parameters())
    assert all(weight.grad is None for weight in rollout.reference.parameters())
    changed = [n for n, now in rollout.network.policy.state_dict().items() if not torch.equal(policy_before[n], now)]
    assert changed, "the policy itself must move"


@pytest.mark.checklist(22)
def test_dropout_is_switched_off_in_every_network() -> None:
    networks = [nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)) for _ in range(4)]
    x = torch.ones(2, 8)
    assert not torch.equal(networks[0](x), networks[0](x)), "with dropout two forwards differ"
    switch_off_dropout(*networks)
    for network in networks:
        network.train()
        assert torch.equal(network(x), network(x))


@pytest.mark.checklist(22)
def test_two_forwards_of_the_networks_in_training_mode_are_equal(lab: Any) -> None:
    network = ActorCritic(lab.decoder(dropout=0.3))
    network.train()
    batch = ReplyBatch.pack([p.ids for p in lab.prompts(2)], [[40, 41], [42]], lab.tokenizer.pad_id)
    assert not torch.equal(network(batch, 1.0).logprobs, network(batch, 1.0).logprobs), "with dropout they differ"
    switch_off_dropout(network)
    assert torch.equal(network(batch, 1.0).logprobs, network(batch, 1.0).logprobs)


@pytest.mark.checklist(18, 19, 23)
def test_adam_epsilon_and_the_papers_constants_are_the_defaults() -> None:
    config = PPOConfig()
    assert config.optimizer.kind == "adamw"
    assert config.optimizer.epsilon == 1e-5
    assert (config.clip, config.value_clip, config.value_coefficient) == (0.2, 0.2, 0.1)
    assert (config.epochs, config.gamma, config.gae_lambda, config.kl_coefficient) == (4, 1.0, 0.95, 0.05)


@pytest.mark.checklist(19)
@pytest.mark.mutation("the value loss has no coefficient", "duihua.stages.ppo:Loss.__call__", without_value_coefficient)
@pytest.mark.mutation("the value loss is left out", "duihua.stages.ppo:Loss.__call__", without_value_loss)
def test_a_tenth_of_the_value_loss_enters_the_loss(lab: Any) -> None:
    """In the first update every ratio is 1 and every value 0, so the loss is sum(-A) + c sum(R^2 / 2) with c = 0.1."""
    rollout = lab.rollout(lab.config())
    (batch,) = rollout.next()
    mask = batch["reply_mask"]
    policy, value = -batch["advantages"][mask].sum(), (batch["returns"][mask] ** 2).sum() / 2
    found = float(Loss(rollout.config, rollout)(rollout.network, batch).sum.detach())
    assert found == pytest.approx(float(policy + 0.1 * value), abs=1e-3)
    assert value > 1.0, "a coefficient would not show where there is nothing to multiply"


@pytest.mark.checklist(23)
@pytest.mark.mutation(
    "Adam keeps torch's own epsilon",
    "duihua.training.optimizers:_torch_optimizer",
    lambda right, groups, config: right(groups, dataclasses.replace(config, epsilon=1e-8)),
)
def test_the_first_step_of_adam_halves_where_the_gradient_equals_its_epsilon() -> None:
    """Bias-corrected, the first step is lr g / (|g| + eps): lr / 2 for g = eps = 1e-5, and lr for a gradient of 1."""
    network = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(network.weight)
    config = PPOConfig().optimizer
    network.weight.grad = torch.tensor([[config.epsilon, 1.0]])
    Optimizer(network, config).step(1.0)
    moved = network.weight.detach()[0] / -config.learning_rate
    assert moved.tolist() == pytest.approx([0.5, 1.0], rel=1e-4)


@pytest.mark.checklist(24)
@pytest.mark.mutation("the rate stays", "duihua.training.schedules:rate_factor", lambda right, *a: 1.0)
def test_learning_rate_falls_linearly_to_zero(lab: Any, tmp_path: Path) -> None:
    rollout = lab.rollout(lab.config(iterations=1, epochs=4, minibatches=2))
    lab.trainer(rollout, tmp_path).run()
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    full = rollout.config.optimizer.learning_rate
    assert rates == pytest.approx([full * (8 - step) / 8 for step in range(8)])


# -- updates ----------------------------------------------------------------------------------------------------------


def gradient(lab: Any, micro_batch: int, mean_of_means: bool = False) -> torch.Tensor:
    """The gradient of the first update, divided by the global number of tokens as the Trainer does."""
    rollout = lab.rollout(lab.config(micro_batch=micro_batch))
    network, loss = rollout.network, Loss(rollout.config, rollout)
    batches = rollout.next()
    parts = [loss(network, batch) for batch in batches]
    if mean_of_means:
        total = sum(part.sum / part.weight for part in parts) / len(parts)
    else:
        total = sum(part.sum for part in parts) / sum(part.weight for part in parts)
    total.backward()
    return torch.cat([w.grad.flatten() for w in network.parameters() if w.grad is not None])


@pytest.mark.checklist(26)
@pytest.mark.mutation(
    "each micro-batch counts alike, however many tokens it has", "duihua.stages.ppo:Loss.__call__", mean_of_means
)
def test_gradient_does_not_depend_on_the_micro_batches(lab: Any) -> None:
    whole = gradient(lab, 16)
    torch.testing.assert_close(gradient(lab, 3), whole, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(gradient(lab, 3, mean_of_means=True), whole, rtol=1e-3, atol=1e-6)


@pytest.mark.checklist(26)
def test_prompt_tokens_and_pads_are_not_in_the_loss(lab: Any) -> None:
    rollout = lab.rollout(lab.config())
    batch = rollout.next()[0]
    loss = Loss(rollout.config, rollout)
    parts = loss(rollout.network, batch)
    assert parts.weight == float(batch["reply_mask"].sum())
    for name in ("advantages", "returns", "values", "logprobs"):
        batch[name] = torch.where(batch["reply_mask"], batch[name], 1e3)
    assert float(loss(rollout.network, batch).sum.detach()) == float(parts.sum.detach())


@pytest.mark.checklist(18)
@pytest.mark.mutation(
    "every epoch has the same order",
    "duihua.stages.prompt_order:permutation",
    lambda right, count, *parts: torch.arange(count),
)
def test_each_epoch_shows_every_reply_once_in_a_fresh_order(lab: Any) -> None:
    rollout = lab.rollout(lab.config(micro_batch=5))
    rollout.next()
    orders = []
    for epoch in range(4):
        rows = [int(row) for update in rollout._minibatches(0, epoch) for part in update for row in part]
        assert sorted(rows) == list(range(32))
        orders.append(frozenset(rows[:16]))
    assert len(set(orders)) == 4, "the first update of each epoch holds other replies"
    assert frozenset(int(row) for part in rollout._minibatches(1, 0)[0] for row in part) not in orders


@pytest.mark.checklist(17)
def test_advantages_are_whitened_over_the_whole_rollout(lab: Any) -> None:
    rollout = lab.rollout(lab.config())
    rollout.next()
    kept = rollout.buffer["advantages"][rollout.buffer["reply_mask"]]
    assert float(kept.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(kept.std(unbiased=False)) == pytest.approx(1.0, abs=1e-4)
    half = rollout.buffer["advantages"][:16][rollout.buffer["reply_mask"][:16]]
    assert abs(float(half.mean())) > 1e-4, "a minibatch alone has another mean: it is not whitened by itself"


@pytest.mark.checklist(25)
@pytest.mark.mutation(
    "each rank decides by what it met itself", "duihua.stages.rollout:Rollout._moved_too_far", decides_alone
)
def test_a_jump_of_kl_gives_the_rollout_up_on_all_ranks(lab: Any) -> None:
    """Rank 1 met no KL itself, but the sum over ranks did: both decide alike."""

    def decide(own: tuple[float, float], everyone: tuple[float, float], limit: float) -> bool:
        summed = torch.tensor(everyone, dtype=torch.float64)
        rollout = lab.rollout(lab.config(stop_kl=limit), reduce=lambda _: summed)
        rollout.buffer = {"there": torch.zeros(1)}
        rollout.observe(*own)
        return rollout._moved_too_far()

    assert decide((50.0, 100.0), (50.0, 200.0), 0.1)
    assert decide((0.0, 100.0), (50.0, 200.0), 0.1)
    assert not decide((50.0, 100.0), (50.0, 200.0), 0.0), "0 switches it off"
    assert not decide((50.0, 100.0), (10.0, 200.0), 0.1)


@pytest.mark.checklist(25)
def test_after_a_jump_the_next_update_comes_from_a_new_rollout(lab: Any) -> None:
    rollout = lab.rollout(lab.config(stop_kl=0.1))
    rollout.next()
    rollout.observe(0.01, 100.0)
    rollout.next()
    assert (rollout.iteration, rollout.cursor, rollout.given_up) == (1, 2, 0)
    rollout.observe(50.0, 100.0)
    rollout.next()
    assert (rollout.iteration, rollout.cursor, rollout.given_up) == (2, 1, 1)


@pytest.mark.checklist(25)
def test_a_jump_in_the_last_update_of_a_rollout_gives_nothing_up(lab: Any) -> None:
    """Nothing is left of that rollout; a jump one update earlier leaves one behind."""

    def given_up(jump: int) -> tuple[int, int]:
        rollout = lab.rollout(lab.config(stop_kl=0.1, epochs=2, minibatches=2))
        for update in range(1, 5):
            rollout.next()
            rollout.observe(50.0 if update == jump else 0.01, 100.0)
        rollout.next()
        return rollout.given_up, rollout.iteration

    assert given_up(jump=4) == (0, 2)
    assert given_up(jump=3) == (1, 2)


@pytest.mark.checklist(13)
def test_adaptive_coefficient_enters_the_next_rollout(lab: Any) -> None:
    rollout = lab.rollout(lab.config(kl_target=6.0, kl_horizon=320.0, kl_coefficient=0.5))
    rollout.next()
    place = ROLLOUT_METRICS.index("kl_coefficient")
    assert float(rollout.buffer["rollout"][place]) == 0.5
    assert rollout.controller.coefficient == pytest.approx(0.5 * (1 - 0.2 * 32 / 320)), (
        "KL 0 is an error of -1, clipped"
    )


# -- what is kept and shown -------------------------------------------------------------------------------------------


@pytest.mark.checklist(27)
@pytest.mark.mutation(
    "the share of replies that end is not logged",
    "duihua.stages.rollout_figures:ROLLOUT_METRICS",
    lambda right: tuple(name for name in right if name != "eos_rate"),
)
def test_names_of_the_logged_figures() -> None:
    assert (*LOSS_METRICS, *ROLLOUT_METRICS) == (
        "policy_loss", "value_loss", "approximate_kl", "ratio", "clip_fraction",
        "reward", "score", "gold_score", "kl", "kl_coefficient", "entropy", "explained_variance", "eos_rate", "length",
        "repetition", "sampler_difference", "iteration",
    )  # fmt: skip


@pytest.mark.checklist(27)
def test_all_figures_reach_the_metrics_file(lab: Any, tmp_path: Path) -> None:
    rollout = lab.rollout(lab.config(iterations=1), gold=lab.gold)
    lab.trainer(rollout, tmp_path).run()
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert {*LOSS_METRICS, *ROLLOUT_METRICS} <= set(line)
    assert line["gold_score"] == pytest.approx(line["score"])
    assert line["entropy"] == pytest.approx(math.log(lab.tokenizer.vocabulary_size), rel=0.05)


@pytest.mark.checklist(30)
@pytest.mark.mutation(
    "the total printed leaves the penalty out",
    "duihua.stages.rollout:Rollout._show",
    lambda right, self, prompts, texts, scores, kl, totals, figures: right(
        self, prompts, texts, scores, kl, scores, figures
    ),
)
def test_sampled_text_is_printed_and_stored_with_score_kl_and_total(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a policy that has left its reference: at the start the KL is 0, and a total without the penalty would be right."""
    rollout = lab.rollout(lab.config(samples=3, kl_coefficient=0.5), directory=tmp_path)
    with torch.no_grad():
        rollout.network.policy.head.weight.mul_(5.0)
    rollout.next()
    stored = json.loads((tmp_path / "rollouts" / "00000.json").read_text(encoding="utf-8"))
    assert len(stored["samples"]) == 3
    for sample in stored["samples"]:
        assert set(sample) == {"prompt", "text", "score", "kl", "total"}
        assert sample["total"] == pytest.approx(sample["score"] - 0.5 * sample["kl"], abs=2e-4)
        assert abs(sample["kl"]) > 0.01
    printed = capsys.readouterr().out
    assert "score" in printed and "KL" in printed and "total" in printed


def test_state_goes_through_a_checkpoint_unchanged(lab: Any, tmp_path: Path) -> None:
    """Stopped after 11 of 20 updates (inside a rollout) and gone on, the run ends with the same bits."""
    config = lab.config(iterations=3, epochs=2, minibatches=4, micro_batch=4)
    whole = lab.rollout(config)
    lab.trainer(whole, tmp_path / "whole", steps=20).run()

    first = lab.rollout(config)
    trainer = lab.trainer(first, tmp_path / "cut", steps=20)
    for _ in range(11):
        trainer.step()
    trainer.save()
    second = lab.rollout(config)
    lab.trainer(second, tmp_path / "cut", steps=20).run()
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, second.network.state_dict()[name]), name
    assert second.iteration == whole.iteration
    forgetful = lab.rollout(config)
    state = first.state_dict() | {"cursor": 0, "buffer": {}}
    forgetful.load_state_dict(state)
    assert not torch.equal(forgetful.next()[0]["logprobs"], whole.next()[0]["logprobs"]), "a lost buffer must show"


@pytest.mark.checklist(12)
def test_a_sign_in_the_penalty_would_show_in_the_reward(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean reward = mean score - beta KL on a policy that moved; with the sign turned the identity breaks."""

    def figures() -> dict[str, float]:
        rollout = lab.rollout(lab.config(kl_coefficient=0.5))
        with torch.no_grad():
            rollout.network.policy.head.weight.mul_(3.0)
        rollout.next()
        return dict(zip(ROLLOUT_METRICS, rollout.buffer["rollout"].tolist(), strict=True))

    found = figures()
    assert found["kl"] > 0.01
    assert found["reward"] == pytest.approx(found["score"] - 0.5 * found["kl"], abs=1e-4)
    right = rollout_module.kl_rewards
    monkeypatch.setattr(rollout_module, "kl_rewards", lambda a, b, s, m, beta: right(a, b, s, m, -beta))
    wrong = figures()
    assert wrong["reward"] != pytest.approx(wrong["score"] - 0.5 * wrong["kl"], abs=1e-4)


@pytest.mark.checklist(16)
def test_rewards_can_be_whitened(lab: Any) -> None:
    plain, white = lab.rollout(lab.config()), lab.rollout(lab.config(whiten_rewards=True))
    plain.next()
    white.next()
    assert not torch.allclose(plain.buffer["returns"], white.buffer["returns"])


@pytest.mark.checklist(11)
@pytest.mark.mutation(
    "every reply counts as ended",
    "duihua.stages.ppo_math:penalise_missing_end",
    lambda right, scores, ended, **k: right(scores, torch.ones_like(ended), **k),
)
def test_missing_end_is_penalised_in_the_rollout(lab: Any) -> None:
    def reward(rule: str) -> float:
        rollout = lab.rollout(
            lab.config(missing_end=rule, missing_end_value=3.0), scorer=lambda p, r: torch.ones(len(r))
        )
        rollout.next()
        return float(rollout.buffer["rollout"][ROLLOUT_METRICS.index("reward")])

    rollout = lab.rollout(lab.config())
    rollout.next()
    ended = float(rollout.buffer["rollout"][ROLLOUT_METRICS.index("eos_rate")])
    assert 0.0 < ended < 1.0
    assert reward("none") == pytest.approx(1.0)
    assert reward("subtract") == pytest.approx(1.0 - 3.0 * (1 - ended), abs=1e-5)
    assert reward("replace") == pytest.approx(ended - 3.0 * (1 - ended), abs=1e-5)


@pytest.mark.checklist(10)
def test_replies_are_records_of_ids_log_probabilities_and_end(lab: Any) -> None:
    config = lab.config()
    for reply in lab.sampler(lab.decoder(), config)(lab.prompts(4), [1, 2, 3, 4]):
        assert isinstance(reply, Reply)
        assert len(reply.ids) == len(reply.logprobs) <= config.reply_tokens
        assert reply.ended == (reply.ids[-1] in lab.tokenizer.stop_ids)
