"""PPO's speed against TRL's: rollout and updates of one and the same policy, reward model and critic, side by side.

    python benchmarks/ppo.py --peer-python PEER/bin/python --policy runs/quickstart/sft --reward runs/quickstart/reward

The peer is the Python of an environment with TRL 1.12.0, the last release that has PPO (`pip install trl==1.12.0`). Both read
the same two bundles, which are Hugging Face directories; both have a critic of its own that starts as the reward model, both
sample `--reply-tokens` tokens to each of the same prompts (nothing ends a reply early, so that all have one length), and both
learn from each rollout for `--epochs` epochs in minibatches of `--minibatch` replies. fp32, `--threads` threads.

Why in turns: a machine that others use too makes whatever runs alone in a quiet minute look fast. Each turn is a process of its
own that does one rollout with its updates to warm up and then `--iterations` that count; the median over all turns is shown.
What is counted is the clock from the first prompt to the last update, without loading. A sample is a prompt with its reply.
Processor seconds stand beside it, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TEMPERATURE, BETA, CLIP, RATE = 1.0, 0.05, 0.2, 5e-6
SIDES = ("duihua", "trl")


def of_duihua(given: argparse.Namespace, prompts: list[list[int]]) -> dict[str, Any]:
    """Seconds of each rollout with its updates, and the mean length of the replies."""
    import torch

    from duihua.engine.engine import Engine
    from duihua.engine.settings import SamplingSettings
    from duihua.models.bundle import load_bundle
    from duihua.stages.actor_critic import ActorCritic, Critic, freeze, switch_off_dropout
    from duihua.stages.configs.ppo import PPOConfig
    from duihua.stages.ppo import Loss
    from duihua.stages.replies import Prompt, Reply
    from duihua.stages.rollout import Rollout
    from duihua.stages.scoring import reward_scorer
    from duihua.training.allocator import keep_freed_memory
    from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
    from duihua.training.trainer import Trainer
    from duihua.version import __version__

    keep_freed_memory()
    torch.set_num_threads(given.threads)
    policy, reference = load_bundle(given.policy), load_bundle(given.policy).policy
    judge, critic = load_bundle(given.reward), load_bundle(given.reward).reward
    config = PPOConfig(
        rollout_prompts=given.batch,
        minibatches=given.batch // given.minibatch,
        micro_batch=given.minibatch,
        epochs=given.epochs,
        reply_tokens=given.reply_tokens,
        temperature=TEMPERATURE,
        kl_coefficient=BETA,
        clip=CLIP,
        value_clip=CLIP,
        missing_end="none",
        stop_kl=0.0,
        slots=given.batch,
        samples=0,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=RATE, beta1=0.9, beta2=0.999, epsilon=1e-5),
        trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9),
    )
    known = judge.normalisation
    parts = (known.mean, known.standard_deviation) if known else (0.0, 1.0)
    network = ActorCritic(policy.policy, None if given.critic == "shared" else Critic(critic, *parts))
    freeze(reference)
    freeze(judge.reward)
    switch_off_dropout(network, reference, judge.reward)
    engine = Engine(policy.policy, None, given.batch)
    settings = SamplingSettings(temperature=TEMPERATURE, max_new_tokens=given.reply_tokens, stop_ids=())

    def sample(asked: Any, seeds: Any) -> list[Reply]:
        made = engine.generate([prompt.ids for prompt in asked], settings, seeds)
        return [Reply(one.ids, one.logprobs.tolist(), False) for one in made]

    steps = config.epochs * config.minibatches
    with tempfile.TemporaryDirectory() as folder:
        rollout = Rollout(
            network,
            reference,
            reward_scorer(judge, micro_batch=given.batch),
            sample,
            [Prompt(place, [{"role": "user", "content": ""}], ids) for place, ids in enumerate(prompts)],
            policy.tokenizer,
            config,
            seed=1,
        )
        trainer = Trainer(
            network,
            Loss(config, rollout),
            rollout,
            steps=steps * (1 + given.iterations),
            optimizer=config.optimizer,
            schedule=ScheduleConfig(kind="linear", warmup_steps=0),
            config=config.trainer,
            directory=Path(folder),
        )
        times = [now()]
        for _ in range(1 + given.iterations):
            for _ in range(steps):
                trainer.step()
            times.append(now())
    length = float(rollout.buffer["reply_mask"].sum(dim=1).float().mean())
    return {**spent(times[1:]), "length": length, "version": f"duihua {__version__}, torch {torch.__version__}"}


def of_trl(given: argparse.Namespace, prompts: list[list[int]]) -> dict[str, Any]:
    """The same of TRL, by its own trainer on its own loop; the time is taken where it logs, once an iteration."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import torch
    import transformers
    import trl  # type: ignore[import-not-found]
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer  # type: ignore[import-not-found]

    torch.set_num_threads(given.threads)
    tokenizer = AutoTokenizer.from_pretrained(given.policy, padding_side="left")

    def scored() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(given.reward, num_labels=1, dtype=torch.float32)

    times: list[tuple[float, float]] = []
    lengths: list[float] = []

    class Timed(PPOTrainer):  # type: ignore[misc]
        def log(self, *_: Any, **__: Any) -> None:
            times.append(now())

    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=given.minibatch,
            gradient_accumulation_steps=given.batch // given.minibatch,
            num_mini_batches=given.batch // given.minibatch,
            num_ppo_epochs=given.epochs,
            total_episodes=given.batch * (1 + given.iterations),
            local_rollout_forward_batch_size=given.batch,
            response_length=given.reply_tokens,
            stop_token_id=None,
            temperature=TEMPERATURE,
            kl_coef=BETA,
            cliprange=CLIP,
            cliprange_value=CLIP,
            learning_rate=RATE,
            num_sample_generations=0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1,
        )
        data = Dataset.from_dict({"input_ids": prompts})
        trainer = Timed(
            args=config,
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(given.policy, dtype=torch.float32),
            ref_model=AutoModelForCausalLM.from_pretrained(given.policy, dtype=torch.float32),
            reward_model=scored(),
            value_model=scored(),
            train_dataset=data,
            eval_dataset=data,
        )
        generated = trl.experimental.ppo.ppo_trainer.batch_generation

        def watched(model: Any, queries: Any, *rest: Any) -> Any:
            made, logits = generated(model, queries, *rest)
            lengths.append(float(made.shape[1] - queries.shape[1]))
            return made, logits

        trl.experimental.ppo.ppo_trainer.batch_generation = watched
        trainer.train()
    version = f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    return {**spent(times), "length": statistics.mean(lengths), "version": version}


def now() -> tuple[float, float]:
    """The clock, and the processor seconds of this process, all threads together."""
    return time.perf_counter(), time.process_time()


def spent(times: list[tuple[float, float]]) -> dict[str, list[float]]:
    """{"seconds", "processor_seconds"} between each of these times and the next."""
    pairs = list(itertools.pairwise(times))
    return {
        "seconds": [after[0] - before[0] for before, after in pairs],
        "processor_seconds": [after[1] - before[1] for before, after in pairs],
    }


def turn(side: str, given: argparse.Namespace, prompts: Path) -> dict[str, Any]:
    """One process of one side. Raises RuntimeError with what it said where it fails."""
    python = sys.executable if side == "duihua" else str(given.peer_python)
    words = [python, str(Path(__file__).resolve()), "--side", side, "--prompts-file", str(prompts)]
    for name in ("policy", "reward", "batch", "minibatch", "epochs", "reply_tokens", "iterations", "threads", "critic"):
        words += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turns. {"sides": {side: {samples_per_second, seconds, length, version}}, "ratio", "load", ...}."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.json"
        file.write_text(json.dumps(make_prompts(given)), encoding="utf-8")
        sides = SIDES if given.peer_python else SIDES[:1]
        turns: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        loads = [os.getloadavg()[0]]
        for number in range(given.repeats):
            for side in sides:
                turns[side].append(turn(side, given, file))
                rate = given.batch / statistics.median(turns[side][-1]["seconds"])
                loads.append(os.getloadavg()[0])
                print(f"turn {number + 1} {side}: {rate:.2f} samples/s, load {loads[-1]:.1f}", file=sys.stderr)
    rows = {}
    for side, found in turns.items():
        seconds = [value for one in found for value in one["seconds"]]
        rows[side] = {
            "samples_per_second": given.batch / statistics.median(seconds),
            "by_turn": [given.batch / statistics.median(one["seconds"]) for one in found],
            "seconds": seconds,
            "processor_seconds_a_sample": statistics.median(
                value / given.batch for one in found for value in one["processor_seconds"]
            ),
            "length": found[0]["length"],
            "version": found[0]["version"],
        }
    ratio = processor_ratio = None
    if "trl" in rows:
        ours, theirs = rows["duihua"], rows["trl"]
        ratio = ours["samples_per_second"] / theirs["samples_per_second"]
        processor_ratio = theirs["processor_seconds_a_sample"] / ours["processor_seconds_a_sample"]
    settings = (
        "batch",
        "minibatch",
        "epochs",
        "prompt_tokens",
        "reply_tokens",
        "threads",
        "repeats",
        "iterations",
        "critic",
    )
    return {
        "sides": rows,
        "ratio": ratio,
        "processor_ratio": processor_ratio,
        "settings": {name: getattr(given, name) for name in settings},
        "load": loads,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    }


def make_prompts(given: argparse.Namespace) -> list[list[int]]:
    """A batch of prompts of one length for each iteration, of ordinary tokens; the same for both sides."""
    size = json.loads((Path(given.policy) / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    generator = random.Random(1)
    count = given.batch * (1 + given.iterations)
    return [[generator.randrange(size // 2, size - 16) for _ in range(given.prompt_tokens)] for _ in range(count)]


def main(argv: list[str] | None = None) -> int:
    """Measure and print. With --side, one turn of one side."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy", default="runs/quickstart/sft", help="bundle of the policy")
    parser.add_argument("--reward", default="runs/quickstart/reward", help="bundle of the reward model and critic")
    parser.add_argument(
        "--peer-python", type=Path, help="Python of an environment with TRL 1.12.0; without it, ours alone"
    )
    parser.add_argument("--batch", type=int, default=64, help="prompts of a rollout")
    parser.add_argument("--minibatch", type=int, default=32, help="replies of an update")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--reply-tokens", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=2, help="rollouts that count in a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--critic", choices=("separate", "shared"), default="separate", help="of ours; TRL's is separate"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--prompts-file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.batch % given.minibatch:
        parser.error(f"--batch {given.batch} is no multiple of --minibatch {given.minibatch}")
    if given.side:
        prompts = json.loads(given.prompts_file.read_text(encoding="utf-8"))
        print(json.dumps({"duihua": of_duihua, "trl": of_trl}[given.side](given, prompts)))
        return 0
    result = compare(given)
    if given.json:
        print(json.dumps(result, indent=1))
        return 0
    for side, row in result["sides"].items():
        print(
            f"{side:8} {row['samples_per_second']:8.2f} samples/s   replies of {row['length']:.1f} tokens   {row['version']}"
        )
    if result["ratio"]:
        loads = f"load {min(result['load']):.1f} to {max(result['load']):.1f}"
        print(f"ratio    {result['ratio']:8.2f}   by processor seconds {result['processor_ratio']:.2f}   {loads}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
