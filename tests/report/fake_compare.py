# ruff: noqa: E501
"""Adds a comparison of all models, and a PPO stage that was measured while it trained, to a made-up run (fake_run.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MODELS = ("base", "sft", "best_of_n", "rejection_sampling", "dpo", "grpo", "ppo")
SHARES = {"base": 0.08, "best_of_n": 0.71, "rejection_sampling": 0.63, "dpo": 0.42, "grpo": 0.66, "ppo": 0.688}
KL = {"best_of_n": 1.204, "rejection_sampling": 1.9, "dpo": 2.4, "grpo": 3.1, "ppo": 4.03}


def share(value: float, n: int = 256) -> dict[str, Any]:
    return {"value": value, "low": value - 0.06, "high": value + 0.06, "n": n, "wins": round(n * value), "ties": 0,
            "losses": n - round(n * value)}  # fmt: skip


def change(before: float, after: float) -> dict[str, Any]:
    return {"before": before, "after": after, "change": {"value": after - before, "standard_error": 0.01, "n": 256}}


def comparison(hostile: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": "Do you like music?"}, {"role": "assistant", "content": "Yes, very much."},
             {"role": "user", "content": "What kind?" + hostile}]  # fmt: skip
    single = [{"role": "user", "content": "你叫什么名字？"}]
    replies = {"base": "第三条 国家机关应当依照本法规定。", "sft": "我叫小对。", "best_of_n": "我叫小对，很高兴认识你。",
               "rejection_sampling": "我叫小对。", "dpo": "我是一个机器人。" + hostile, "grpo": "我叫小对。", "ppo": "我叫小对！你呢？"}  # fmt: skip
    matrix = []
    for place, name in enumerate(MODELS):
        for other in MODELS[:place]:
            value = SHARES[name] if other == "sft" else 1 - SHARES["base"] if (other, name) == ("base", "sft") else 0.5
            matrix.append({"model": name, "over": other, **share(value)})
    return {
        "models": list(MODELS),
        "reference": "sft",
        "best_of": 8,
        "judge": "reward",
        "judge_is_the_training_reward": False,
        "judge_accuracy": {"value": 0.731, "low": 0.69, "high": 0.77, "n": 500},
        "matrix": matrix,
        "against_reference": {
            name: {
                "win_rate": share(SHARES[name]),
                "judge_gain": {"value": SHARES[name] - 0.5, "standard_error": 0.04, "n": 256},
                "reward_gain": None,
                "kl_nats": KL.get(name),
                "length": change(11.2, 12.5),
                "repetition_rate": change(0.0012, 0.0034),
                "eos_rate": change(0.97, 0.99),
            }
            for name in MODELS
            if name != "sft"
        },
        "frontier": {
            "points": [
                {"model": name, "kl": KL[name], "value": SHARES[name] - 0.5, "standard_error": 0.04, "n": 256}
                for name in ("rejection_sampling", "dpo", "grpo", "ppo")
            ],
            "best_of_n": [{"n": n, "kl": 0.15 * n, "gain": 0.05 * n, "standard_error": 0.01} for n in range(1, 9)],
        },
        "worse": {
            "dpo": [
                {"prompt": "Hello" + hostile, "messages": [{"role": "user", "content": "Hello" + hostile}], "language": "en",
                 "text_before": "Hello, how are you?", "text_after": "the the the", "judge_before": 1.5, "judge_after": -2.25}
            ] * 3,
            "ppo": [],
        },
        "time_machine": [
            {"language": "en", "prompt": "What kind?", "messages": turns, "replies": {name: f"Reply of {name}" for name in MODELS}},
            *({"language": "zh", "prompt": "你叫什么名字？", "messages": single, "replies": replies} for _ in range(5)),
        ],
        "prompts": {"en": 128, "zh": 128},
        "temperature": 1.0,
        "sample_temperature": 0.6,
        "left_out": {"total": 0, "reasons": {}},
        "seconds": 61.0,
    }  # fmt: skip


def over_optimisation() -> dict[str, Any]:
    """The judge turns down after step 48 while the reward goes on rising."""
    judged = [0.0, 0.21, 0.35, 0.44, 0.38, 0.29, 0.2]
    rows = [
        {"step": 16 * place, "heldout_kl": 0.7 * place, "heldout_reward": 0.15 * place, "heldout_judge": value}
        for place, value in enumerate(judged)
    ]
    return {"rows": rows, "best_step": 48, "kept_step": 48, "prompts": 64}


def add_comparison(run: Path, hostile: str = "") -> Path:
    """Give a run that `build_fake_run` made a finished stage `compare` and figures of PPO's course."""
    folder = run / "compare"
    folder.mkdir()
    result = {"bundle": None, "metrics": comparison(hostile)}
    (folder / "result.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    entry = {
        "name": "compare",
        "stage": "compare",
        "directory": "compare",
        "seconds": 61.0,
        "status": "finished",
        "config": {},
    }
    record["stages"].append(entry)
    (run / "run.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    if (path := run / "ppo" / "result.json").exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored["metrics"]["over_optimisation"] = over_optimisation()
        path.write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    return run
