"""The rollout of GRPO and RLOO: several replies to each prompt, judged against one another.

All that PPO's rollout does stays: the same drawing by the engine, the log-probabilities of the trainer's own forward, the
agreement of both, minibatches, early stop and state (rollout.py). Here are the two things that differ: which prompts are
drawn, and what a reply is credited with. Every token of a reply has its reply's advantage.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from duihua.engine.randomness import sample_seed
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.group_math import group_advantages, solved_alike, whole_reply_rewards
from duihua.stages.prompt_order import order_of_prompts
from duihua.stages.replies import Prompt
from duihua.stages.rollout import Rollout
from duihua.stages.rollout_figures import ROLLOUT_METRICS, Credit, Judged

GROUP_METRICS = (
    *(name for name in ROLLOUT_METRICS if name != "explained_variance"),
    "group_deviation",
    "solved_alike",
)
"""What is logged of each rollout: as PPO's, without a critic's figure. group_deviation: of the rewards within a group, mean
over the groups; solved_alike: share of groups whose replies all earn the same, from which nothing is learnt."""


class GroupRollout(Rollout):
    """`rollout_prompts` prompts with `group` replies each. `config` is a GRPOConfig, `network` an Actor."""

    columns: ClassVar[tuple[str, ...]] = ("logprobs", "reference", "advantages")
    metrics: ClassVar[tuple[str, ...]] = GROUP_METRICS
    stage: ClassVar[str] = "grpo"

    def _draw(self) -> tuple[list[Prompt], list[int]]:
        """Each prompt `group` times in a row, every reply with a seed of its own."""
        config = self.config
        assert isinstance(config, GRPOConfig)
        count = config.rollout_prompts
        chosen = order_of_prompts(len(self.prompts), self.seed, self.iteration * count, count)
        # A prompt can stand twice in one rollout when there are few: its groups then hold different replies.
        seeds = [
            sample_seed(
                self.seed, self.iteration, self.prompts[index].index, chosen[:place].count(index) * config.group + reply
            )
            for place, index in enumerate(chosen)
            for reply in range(config.group)
        ]
        return [self.prompts[index] for index in chosen for _ in range(config.group)], seeds

    def _credit(self, judged: Judged, scores_n: Tensor) -> Credit:
        """The advantage of each reply over its group, the same for all its tokens."""
        config, mask = self.config, self.buffer["reply_mask"]
        assert isinstance(config, GRPOConfig)
        kl_n = ((judged.logprobs_nr - judged.reference_nr) * mask).sum(dim=1)
        coefficient = self.controller.coefficient
        totals_n = whole_reply_rewards(scores_n, kl_n, coefficient)
        rewards_n = scores_n if config.kl_in_loss else totals_n
        advantages_n = group_advantages(
            rewards_n, config.group, leave_one_out=config.kind == "rloo", scale=config.divides_by_deviation
        )
        figures = {
            "group_deviation": float(rewards_n.view(-1, config.group).std(dim=1).mean()),
            "solved_alike": solved_alike(rewards_n, config.group),
        }
        columns = {"reference": judged.reference_nr, "advantages": advantages_n[:, None] * mask}
        return Credit(totals_n, columns, figures)
