"""A laboratory for the alignment tests: a tiny tokenizer, random decoders, files of conversations, and short PPO runs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.data.source import SourceConfig
from duihua.models.bundle import ModelCard, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.stages.actor_critic import ActorCritic, Critic, freeze
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.ppo import Loss
from duihua.stages.replies import Prompt, Reply, Sampler, engine_sampler
from duihua.stages.rollout import Rollout
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.trainer import Trainer

WORDS = ["red", "blue", "green", "one", "two", "three", "four", "cat", "dog", "bird", "sings", "runs", "sleeps"]


class Lab:
    """Everything small that the tests of reward model and PPO share."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def decoder(self, seed: int = 0, context: int = 64, dropout: float = 0.0) -> Decoder:
        """A random decoder whose blocks do something (the ordinary start makes them the identity). dropout: at all three
        places that have one."""
        shape = DecoderConfig(
            vocabulary_size=self.tokenizer.vocabulary_size, width=32, layers=2, heads=2, key_value_heads=1,
            head_width=16, feed_forward_width=48, context=context, embedding_dropout=dropout,
            attention_dropout=dropout, residual_dropout=dropout,
        )  # fmt: skip
        decoder = Decoder(shape).initialise(seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in decoder.named_parameters():
                if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                    weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
                elif name == "head.weight":
                    weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
        return decoder

    def prompts(self, count: int) -> list[Prompt]:
        """Prompts of different lengths."""
        texts = [f"{WORDS[i % len(WORDS)]} {'please ' * (i % 4)}{i}" for i in range(count)]
        return [
            Prompt(i, [{"role": "user", "content": text}], self.tokenizer.encode(text)) for i, text in enumerate(texts)
        ]

    def config(self, **changes: Any) -> PPOConfig:
        """A PPO run of a second or two."""
        base = PPOConfig(
            sources=(SourceConfig(name="tiny-chat"),), iterations=12, rollout_prompts=32, minibatches=2, micro_batch=16,
            reply_tokens=8, missing_end="none", stop_kl=0.0, samples=2, slots=32,
            optimizer=OptimizerConfig(kind="adamw", learning_rate=4e-3, beta1=0.9, beta2=0.999, epsilon=1e-5),
            trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9),
        )  # fmt: skip
        return replace(base, **changes)

    def gold(self, prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        """A reward that anyone can check: four times the share of token ids that 4 divides (about 1 by chance)."""
        return torch.tensor([4 * sum(t % 4 == 0 for t in reply.ids) / len(reply.ids) for reply in replies])

    def sampler(self, policy: Decoder, config: PPOConfig) -> Sampler:
        return engine_sampler(
            policy, self.tokenizer, reply_tokens=config.reply_tokens, temperature=config.temperature, slots=config.slots
        )

    def rollout(self, config: PPOConfig, *, critic: Critic | None = None, seed: int = 1, **changes: Any) -> Rollout:
        """A rollout over a fresh policy, its frozen copy as reference and the gold reward."""
        policy = self.decoder()
        reference = copy.deepcopy(policy)
        freeze(reference)
        parts: dict[str, Any] = {
            "scorer": self.gold, "sampler": self.sampler(policy, config), "prompts": self.prompts(24),
        }  # fmt: skip
        return Rollout(
            ActorCritic(policy, critic),
            reference,
            tokenizer=self.tokenizer,
            config=config,
            seed=seed,
            **parts | changes,
        )

    def trainer(self, rollout: Rollout, directory: Path, steps: int | None = None) -> Trainer:
        """The one Trainer on a rollout."""
        config = rollout.config
        return Trainer(
            rollout.network, Loss(config, rollout), rollout, steps=steps or config.steps, optimizer=config.optimizer,
            schedule=ScheduleConfig(kind="linear", warmup_steps=0), config=config.trainer, directory=directory,
        )  # fmt: skip

    # -- files for whole stages ---------------------------------------------------------------------------------------

    def policy_bundle(self, directory: Path, seed: int = 0, dropout: float = 0.0) -> Path:
        policy = self.decoder(seed, dropout=dropout)
        save_bundle(directory, policy, self.tokenizer, ModelCard(title="tiny", stage="sft"))
        return directory

    def conversations(self, folder: Path, count: int = 400) -> SourceConfig:
        """Conversations in which the reply names what the prompt named."""
        lines = []
        for i in range(count):
            word, other = WORDS[i % len(WORDS)], WORDS[(i // len(WORDS)) % len(WORDS)]
            lines.append({"messages": [
                {"role": "user", "content": f"say {word} {other} {i}"},
                {"role": "assistant", "content": f"{word} {other}"},
            ]})  # fmt: skip
        return self._write(folder / "conversations.jsonl", lines, "conversations")

    def preferences(self, folder: Path, count: int = 300) -> SourceConfig:
        """Pairs in which the better reply is the word asked for and the worse one is noise; one is far too long."""
        lines: list[dict[str, Any]] = []
        for i in range(count):
            word = WORDS[i % len(WORDS)]
            lines.append({"prompt": f"name {word} {i}", "chosen": f"{word} sings", "rejected": f"zzz {i % 7}"})
        lines.append({"prompt": "name long", "chosen": "cat " * 200, "rejected": "zzz"})
        return self._write(folder / "preferences.jsonl", lines, "preferences")

    def _write(self, path: Path, lines: list[dict[str, Any]], kind: Any) -> SourceConfig:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return SourceConfig(path=str(path), kind=kind, language="en")

    def reward_config(self, folder: Path, **changes: Any) -> RewardConfig:
        """A reward stage of a second or two."""
        base = RewardConfig(
            preferences=(self.preferences(folder),), conversations=(self.conversations(folder),), sampled_pairs=120,
            off_topic_pairs=40, heldout_sampled_pairs=16, heldout_off_topic_pairs=8, reply_tokens=12, batch_pairs=16,
            micro_batch_pairs=8, normalisation_samples=64, verification_samples=64,
            optimizer=OptimizerConfig(kind="adamw", learning_rate=3e-3, beta1=0.9, beta2=0.95, epsilon=1e-5),
            trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9),
        )  # fmt: skip
        return replace(base, **changes)


@pytest.fixture(scope="session")
def lab() -> Lab:
    torch.set_num_threads(1)
    texts = [" ".join(WORDS), "say name please zzz", "user assistant"] * 6
    return Lab(Tokenizer.train(texts, 290))


@contextmanager
def _killed(owner: Any, name: str, call: int) -> Iterator[None]:
    right, calls = getattr(owner, name), 0

    def stop(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise RuntimeError("killed")
        return right(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, stop)
        with pytest.raises(RuntimeError, match="killed"):
            yield


@pytest.fixture
def killed() -> Callable[[Any, str, int], AbstractContextManager[None]]:
    """`with killed(module, "sft_loss", 16):` ends what runs inside at the 16th call of that function, and holds that it
    did."""
    return _killed
