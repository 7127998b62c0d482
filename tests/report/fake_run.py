# ruff: noqa: E501
"""Writes a run directory that looks like a real one, without training: the fixture of the report's tests.

Loaded with runpy, because tests are no package. The numbers are made up but hang together (bits per byte, perplexity and
loss agree in size), the curves have noise, a warm-up and a decay, and the keys are those that the stages write.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = ("tokenizer", "pretrain", "sft", "reward", "ppo", "evaluate")

TERMS: dict[str, dict[str, Any]] = {
    "encyclopaedia": {
        "name": "encyclopaedia",
        "licence": "CC BY-SA 3.0",
        "homepage": "https://en.wikipedia.org",
        "attribution": "Wikipedia authors",
        "note": "Opening paragraphs of articles",
        "language": "en",
        "records": 41213,
    },
    "law": {
        "name": "law",
        "licence": "public domain",
        "homepage": "",
        "attribution": "",
        "note": "法律条文，官方文件不受著作权保护",
        "language": "zh",
        "records": 20155,
    },
    "small-talk": {
        "name": "small-talk",
        "licence": "BSD-3-Clause",
        "homepage": "https://example.org/small-talk",
        "attribution": "the corpus' contributors",
        "note": "Questions and answers on greetings, food, science and more",
        "language": "en,zh",
        "records": 9120,
    },
}

GREETINGS = {
    "en": ["Hello", "Hi there", "How are you?", "What is your name?", "Good morning", "Tell me a joke", "Thank you",
           "Are you a robot?", "What is AI?", "Goodbye"] * 2,
    "zh": ["你好", "早上好", "你叫什么名字？", "你是机器人吗？", "谢谢", "再见", "你会说英语吗？", "给我讲个笑话",
           "什么是人工智能？", "你喜欢吃什么？"] * 2,
}  # fmt: skip


def token_view(hostile: str) -> dict[str, Any]:
    """What the tokenizer stage writes beside its result: a sentence under two vocabularies."""
    text = hostile or "A dog 狗"
    spans = {
        "bytes": [{"start": 0, "end": len(text), "id": 300, "text": text, "known": True, "whole": True},
                  {"start": 0, "end": 1, "id": 9, "text": "<E7 8B>", "known": True, "whole": False}],
        "words": [{"start": 0, "end": len(text), "id": 0, "text": text, "known": False, "whole": True}],
    }  # fmt: skip
    rows = [
        {
            "vocabulary": name,
            "tokens": len(each),
            "unknown": int(name == "words"),
            "characters_per_token": 3.5,
            "spans": each,
        }
        for name, each in spans.items()
    ]
    costs = {
        name: {code: {"characters_per_token": 3.2, "unknown_share": 0.02} for code in ("en", "zh")} for name in spans
    }
    return {
        "vocabularies": [{"name": name, "kind": name, "ids": 8192} for name in spans],
        "texts": [{"text": text, "characters": len(text), "bytes": len(text.encode()), "rows": rows}],
        "heldout": costs,
    }


def build_fake_run(
    directory: Path, stages: tuple[str, ...] = STAGES, hostile: str = "", steps: int = 600, expected: bool = True
) -> Path:
    """Write a run with these finished stages. `hostile` is put wherever text from models or data appears.

    The recipe holds the stages of the quickstart; those that are not finished have no folder yet.
    """
    random.seed(7)
    entries: list[dict[str, Any]] = []
    for kind in dict.fromkeys((*STAGES, *stages)):
        if kind not in stages:
            entries.append({"name": kind, "stage": kind, "directory": kind, "config": CONFIGS[kind]})
            continue
        folder = directory / kind
        folder.mkdir(parents=True)
        result = RESULTS[kind](hostile)
        if kind == "pretrain" and not expected:
            del result["expected"]["bits_per_byte"]
        config = CONFIGS[kind]
        _write(folder / "result.json", {"bundle": None if kind == "evaluate" else ".", "metrics": result})
        _write(folder / "settings.json", config)
        if kind == "tokenizer":
            _write(folder / "token_view.json", token_view(hostile))
        rows = ROWS[kind](steps) if kind in ROWS else []
        if rows:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
        if kind not in ("tokenizer", "evaluate"):
            (folder / "model.safetensors").write_bytes(_weights(37_450))
        entries.append(
            {
                "name": kind,
                "stage": kind,
                "directory": kind,
                "seconds": result["seconds"],
                "status": "finished",
                "config": config,
            }
        )
    run = {
        "recipe": {"name": "quickstart" + hostile, "about": {}},
        "seed": 1,
        "threads": 2,
        "device": "cpu",
        "versions": {
            "duihua": "0.1.0",
            "python": "3.11.2",
            "torch": "2.13.0",
            "tokenizers": "0.22.1",
            "numpy": "2.3.4",
        },
        "command": "duihua run recipes/quickstart.yaml --directory runs/quickstart" + hostile,
        "machine": {"processor": "x86_64, 2 cores", "memory_gib": 7.8, "system": "Linux 6.1"},
        "minutes": 11.83,
        "peak_memory_gib": 2.41,
        "stages": entries,
    }
    _write(directory / "run.json", run)
    return directory


def _weights(count: int) -> bytes:
    """A safetensors file of `count` float32 zeros: eight bytes of length, the header, the numbers."""
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}
    )
    return len(header).to_bytes(8, "little") + header.encode() + bytes(4 * count)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _tokenizer(hostile: str) -> dict[str, Any]:
    return {
        "vocabulary_size": 8192,
        "characters_per_token": {"en": 4.02, "zh": 1.43},
        "sample_bytes": {"en": 4_194_304, "zh": 4_194_304},
        "seconds": 3.4,
        "terms": [TERMS["encyclopaedia"], {**TERMS["law"], "note": TERMS["law"]["note"] + hostile}],
    }


def _pretrain(hostile: str) -> dict[str, Any]:
    return {
        "parameters": 5_312_768,
        "steps": 600,
        "tokens": 1_228_800,
        "loss": 3.62,
        "bits_per_byte": {"all": 1.931, "en": 2.104, "zh": 1.772},
        "perplexity": {"all": 41.3, "en": 52.9, "zh": 33.7},
        "tokens_per_second": 3127.4,
        "seconds": 413.2,
        "settings": {"width": 256, "layers": 4, "heads": 4, "key_value_heads": 2, "feed_forward": 768, "context": 256,
                     "batch_tokens": 2048, "steps": 600, "muon_learning_rate": 0.02, "adamw_learning_rate": 0.003,
                     "warmup_tokens": 40960, "decay_share": 0.4},
        "expected": {"first_loss": math.log(8192), "bits_per_byte": [1.85, 2.0]},
        "prediction": {
            "minutes": {"predicted": 6.0, "achieved": 6.6, "ratio": 1.1, "held": True},
            "memory_gib": {"predicted": 1.0, "achieved": 1.5, "ratio": 1.5, "held": False},
            "bits_per_byte": {"predicted": 1.9, "achieved": 1.931, "ratio": 1.016, "low": 1.8, "high": 2.0, "held": True},
            "held": False,
        },
        "skipped_steps": 0,
        "left_out": {"encyclopaedia": {"total": 12, "reasons": {"bytes that are not UTF-8": {"count": 12, "first": "articles.jsonl:881"}}},
                     "law": {"total": 0, "reasons": {}}},
        "heldout_bytes": 740_112,
        "terms": [TERMS["encyclopaedia"], TERMS["law"]],
    }  # fmt: skip


def _sft(hostile: str) -> dict[str, Any]:
    return {
        "parameters": 5_312_768,
        "steps": 300,
        "tokens": 402_331,
        "loss": 1.71,
        "heldout_loss": 2.02,
        "heldout_token_accuracy": {"value": 0.561, "low": 0.548, "high": 0.574, "n": 5620},
        "sources": [
            {"name": "small-talk" + hostile, "language": "en", "conversations": 4210, "tokens": 151_202,
             "left_out": {"empty message": 3, "last turns cut off, longer than a row": 41}},
            {"name": "tutor", "language": "zh", "conversations": 3108, "tokens": 251_129, "left_out": {}},
        ],
        "memorised": {
            "sources": [
                {"name": "small-talk" + hostile, "times_seen": 12.4, "heldout_known": 221,
                 "gap": {"value": 1.84, "low": 1.52, "high": 2.17, "n": 76},
                 "train": _by_heart(16, 0.31, 0.75, 0.93), "heldout": _by_heart(60, 2.15, 0.08, 0.61)},
                {"name": "tutor", "times_seen": 0.6, "heldout_known": 0, "gap": None,
                 "train": _by_heart(16, 1.92, 0.0, 0.22), "heldout": None},
            ],
            "exact": {"train": {"value": 0.375, "low": 0.21, "high": 0.57, "n": 24},
                      "heldout": {"value": 0.083, "low": 0.01, "high": 0.35, "n": 12}},
            "curve": [{"step": step, "heldout_loss": 2.9, "train_loss/small-talk" + hostile: 0.3 + 2 * math.exp(-step / 60),
                       "heldout_loss/small-talk" + hostile: 2.4, "train_loss/tutor": 1.9 + math.exp(-step / 60)}
                      for step in (0, 75, 150, 225, 300)],
        },
        "seconds": 84.0,
        "terms": [TERMS["small-talk"]],
    }  # fmt: skip


def _by_heart(conversations: int, loss: float, exact: float, copied: float) -> dict[str, Any]:
    """Figures of one part of a source, as sft writes them."""

    def near(value: float, n: int) -> dict[str, Any]:
        return {"value": value, "low": max(0.0, value - 0.1), "high": value + 0.1, "n": n}

    return {"conversations": conversations, "tokens": 40 * conversations, "loss": near(loss, conversations), "prompts": 12,
            "exact": near(exact, 12), "longest_run": near(9 * copied, 12), "run_share": near(copied, 12),
            "copied": near(copied, 12), "reference_copied": near(0.12, 12)}  # fmt: skip


def _reward(hostile: str) -> dict[str, Any]:
    return {
        "steps": 160,
        "accuracy": {"value": 0.713, "low": 0.681, "high": 0.744, "n": 812},
        "kinds": {
            "human": {"value": 0.587, "low": 0.519, "high": 0.652, "n": 206,
                      "description": "Two replies to one prompt, ranked by people" + hostile,
                      "description_zh": "同一提示的两个回答，由人排序" + hostile},
            "sampled": {"value": 0.756, "low": 0.72, "high": 0.789, "n": 606,
                        "description": "A reply of the data against one sampled from the fine-tuned model"},
            "off_topic": {"value": 0.934, "low": 0.911, "high": 0.952, "n": 600,
                          "description": "A reply of the data against the reply to another prompt"},
        },
        "probes": {"word_salad": {"value": 0.91, "low": 0.86, "high": 0.94, "n": 200, "description": "words in random order"},
                   "longer": {"value": 0.63, "low": 0.56, "high": 0.69, "n": 200, "description": "the reply twice"}},
        "normalisation": {"mean": 0.214, "std": 1.381, "n": 192, "on_reference_policy": True,
                          "verification": {"mean": 0.041, "mean_standard_error": 0.103, "std": 1.009,
                                           "std_standard_error": 0.058, "n": 190}},
        "left_out": {"train": {"total": 9, "reasons": {"prompt met before": {"count": 9, "first": "small-talk"}}},
                     "heldout": {"total": 4, "reasons": {"prompt met before": {"count": 4, "first": "tutor"}}}},
        "cut": {"train": {"total": 290, "reasons": {"human pair cut to 128 tokens": {"count": 290, "first": "dpo-en"}}}},
        "sources": [
            {"source": "small-talk" + hostile, "kind": "human", "value": 0.587, "low": 0.519, "high": 0.652, "n": 206},
            {"source": "tutor", "kind": "off_topic", "value": 0.31, "low": 0.25, "high": 0.38, "n": 200},
        ],
        "calibration_error": 0.041,
        "calibration_curve": [
            {"low": 0.5, "high": 0.55, "confidence": 0.527, "right": 0.48, "n": 300},
            {"low": 0.9, "high": 0.95, "confidence": 0.924, "right": 0.89, "n": 212},
        ],
        "margins": [{"low": -1.5, "high": 0.0, "n": 233}, {"low": 0.0, "high": 1.5, "n": 400}, {"low": 1.5, "high": 3.0, "n": 179}],
        "length_correlation": 0.12,
        "chosen_is_longer": 0.531,
        "seconds": 40.5,
        "terms": [TERMS["small-talk"]],
    }  # fmt: skip


def _ppo(hostile: str) -> dict[str, Any]:
    samples = []
    for index in range(128):
        before = random.gauss(0.1, 0.9)
        after = before * 0.6 + random.gauss(0.55, 0.5)
        kl = abs(random.gauss(3, 1.2))
        prompt = ["What do you like to eat?", "你今天过得怎么样？"][index % 2]
        samples.append(
            {"prompt": [{"role": "user", "content": prompt + hostile}],
             "text_before": ["I do not know what do you mean by that.", "我是一个我是一个。"][index % 2] + hostile,
             "text_after": ["I like electricity, thank you for asking!", "我很好，谢谢你！你呢？"][index % 2] + hostile,
             "reward_before": before, "reward_after": after, "kl": kl, "total": after - 0.05 * kl}
        )  # fmt: skip
    return {
        "steps": 320,
        "iterations": 20,
        "reward_before": 0.08,
        "reward_after": 0.61,
        "reward_gain": {"value": 0.531, "standard_error": 0.052, "n": 128},
        "kl_nats": 3.04,
        "repetition_rate": {"before": 0.061, "after": 0.048},
        "length": {"before": 17.2, "after": 15.9},
        "eos_rate": {"before": 0.94, "after": 0.985},
        "samples": samples,
        "seconds": 92.7,
    }


def _classify(hostile: str) -> dict[str, Any]:
    return {
        "task": "classification",
        "classes": ["comp.graphics" + hostile, "sci.med", "sport"],
        "from_scratch": False,
        "examples": {"train": {"sci.med": 400}, "heldout": {"sci.med": 90}},
        "cut": {"train": {"examples": 1000, "cut_examples": 212, "cut_tokens": 40_551, "tokens": 70_112},
                "heldout": {"examples": 300, "cut_examples": 61, "cut_tokens": 9_020, "tokens": 21_660}},
        "left_out": {"train": {"total": 2, "reasons": {"empty text": {"count": 2, "first": "news.tsv:8"}}}},
        "length": 96,
        "steps": 96,
        "accuracy": {"value": 0.823, "low": 0.776, "high": 0.862, "n": 300},
        "f1": None,
        "macro_f1": 0.811,
        "matthews": 0.732,
        "positive": None,
        "confusion": {"labels": ["comp.graphics" + hostile, "sci.med", "sport"], "counts": [[81, 11, 8], [9, 74, 7], [6, 12, 92]]},
        "baseline": {"accuracy": {"value": 0.3667, "low": 0.31, "high": 0.42, "n": 300}, "f1": None, "macro_f1": 0.179, "matthews": 0.0},
        "seeds": [{"seed": 1, "accuracy": 0.823, "f1": None, "macro_f1": 0.811, "matthews": 0.732},
                  {"seed": 2, "accuracy": 0.807, "f1": None, "macro_f1": 0.796, "matthews": 0.709}],
        "over_seeds": {"accuracy": {"value": 0.815, "low": 0.713, "high": 0.917, "n": 2}, "f1": None,
                       "macro_f1": {"value": 0.8035, "low": 0.708, "high": 0.899, "n": 2},
                       "matthews": {"value": 0.7205, "low": 0.574, "high": 0.867, "n": 2}},
        "mistakes": [{"texts": ["does anyone know a good image viewer" + hostile], "truth": "comp.graphics" + hostile, "predicted": "sport"},
                     {"texts": ["第一句", "第二句"], "truth": "sport", "predicted": "sci.med"}],
        "seconds": 31.5,
        "terms": [TERMS["small-talk"]],
    }  # fmt: skip


def _bag_of_words(hostile: str) -> dict[str, Any]:
    kept = (
        "task",
        "classes",
        "accuracy",
        "f1",
        "macro_f1",
        "matthews",
        "positive",
        "confusion",
        "baseline",
        "mistakes",
    )
    shared = {name: value for name, value in _classify(hostile).items() if name in kept}
    return shared | {
        "weighting": "tf-idf",
        "classifier": "linear",
        "words": 12_345,
        "examples": {"train": {"sci.med": 1000}, "heldout": {"sci.med": 100, "sport": 200}},
        "trained_on": 1000,
        "seeds": [],
        "over_seeds": None,
        "telling_words": {
            "comp.graphics" + hostile: ["polygon", "viewer" + hostile],
            "sci.med": ["doctor"],
            "sport": ["goal"],
        },
        "seconds": 4.5,
        "terms": [TERMS["small-talk"]],
    }


def _ngram(hostile: str) -> dict[str, Any]:
    return {
        "order": 2,
        "vocabulary": "words (marks)",
        "vocabulary_size": 10_000,
        "tokens": 1_234_567,
        "bits_per_byte_at_least": {"all": 1.876},
        "unknown_share": 0.041,
        "orders": {"1": {"ngrams": 9_998, "perplexity": {"all": {"value": 710.2, "low": 700.1, "high": 720.3, "n": 40}}},
                   "2": {"ngrams": 301_422, "perplexity": {"all": {"value": 181.4, "low": 170.0, "high": 192.8, "n": 40}}}},
        "samples": ["the of a which is in the city" + hostile],
        "seconds": 3.2,
        "terms": [TERMS["encyclopaedia"]],
    }  # fmt: skip


def _recurrent(hostile: str) -> dict[str, Any]:
    return {
        "cell": "lstm",
        "parameters": 4_321_000,
        "steps": 400,
        "tokens": 280_000,
        "loss": 4.91,
        "perplexity": {"train": 88.4, "valid": 141.6, "test": 139.2},
        "measured_tokens": {"train": 50_000, "valid": 59_632, "test": 66_736},
        "averaged": True,
        "corpus": {"name": "words" + hostile, "vocabulary_size": 10_000, "tokens": {"train": 690_193},
                   "unknown_share": {"test": 0.0523}, "treebank": False},
        "samples": ["the river is a <unk> of the county" + hostile],
        "seconds": 61.0,
        "terms": [TERMS["encyclopaedia"]],
    }  # fmt: skip


def _translate(hostile: str) -> dict[str, Any]:
    bleu, chrf = "nrefs:1|case:mixed|tok:13a|smooth:exp", "nrefs:1|case:mixed|nc:6|nw:0"
    validated = {"validation_loss": 1.571, "validation_perplexity": 4.81, "validation_bleu": 47.3,
                 "validation_bleu_signature": bleu + "|greedy"}  # fmt: skip
    return {
        "directions": ["fr-en"],
        "network": "transformer",
        "parameters": 7_622_400,
        "vocabulary_size": 8000,
        "pairs": {"train": 29_452, "validation": 1014, "test": 1000, "train_sharing_a_text_with_test": 3},
        "left_out": {"total": 2, "reasons": {"training: more than 128 tokens": {"count": 2, "first": "multi30k-fr-en"}}},
        "steps": 600,
        "epochs": 20,
        "tokens": 2_400_000,
        "loss": 2.31,
        "plain_loss": 1.02,
        "skipped_steps": 0,
        "kept": "averaged",
        "candidates": {"averaged_snapshots": 5, "last": {**validated, "validation_bleu": 46.1}, "averaged": validated,
                       "best": {**validated, "validation_bleu": 46.6}},
        "test": {"fr-en": {"sentences": 1000, "bleu": {"value": 51.27, "signature": bleu}, "chrf": {"value": 68.9, "signature": chrf},
                           "bleu_interval": {"value": 51.27, "low": 49.8, "high": 52.7, "n": 1000},
                           "chrf_interval": {"value": 68.9, "low": 67.9, "high": 69.9, "n": 1000},
                           "by_length": {"measured": "source", "unit": "words", "buckets": [
                               {"length": "6-10", "sentences": 300, "bleu": {"value": 55.1, "signature": bleu}},
                               {"length": "31+", "sentences": 12, "bleu": {"value": 33.4, "signature": bleu}}]}}},
        "search": {"beam": 5, "length_penalty": "gnmt"},
        "samples": [{"direction": "fr-en", "source": "Je suis étudiant" + hostile, "translation": "I am a student" + hostile},
                    {"direction": "fr-en", "source": "Deux chiens jouent.", "translation": "Two dogs play.",
                     "reference": "Two dogs are playing." + hostile}],
        "tokens_per_second": 4100.0,
        "seconds": 900.0,
        "terms": [{"name": "multi30k-fr-en", "language": "fr-en", "licence": "research data"}],
    }  # fmt: skip


def _evaluate(hostile: str) -> dict[str, Any]:
    def greetings(language: str) -> dict[str, Any]:
        answers = {"en": "Hello! How can I help you today?", "zh": "你好！很高兴见到你。"}
        items = [
            {"prompt": prompt, "reply": answers[language] + hostile, "matched": index not in (5, 12)}
            for index, prompt in enumerate(GREETINGS[language])
        ]
        return {"matched": 18, "total": 20, "items": items}

    return {
        "bits_per_byte": {"base": {"all": 1.931, "en": 2.104, "zh": 1.772}, "sft": {"all": 2.141, "en": 2.3, "zh": 1.99},
                          "ppo": {"all": 2.163, "en": 2.33, "zh": 2.01}},
        "perplexity": {"base": {"all": 41.3, "en": 52.9, "zh": 33.7}, "sft": {"all": 62.0, "en": 74.1, "zh": 51.2},
                       "ppo": {"all": 64.4, "en": 77.0, "zh": 53.3}},
        "token_accuracy": {"base": {"value": 0.312, "low": 0.3, "high": 0.324, "n": 5600},
                           "sft": {"value": 0.561, "low": 0.548, "high": 0.574, "n": 5600},
                           "ppo": {"value": 0.552, "low": 0.539, "high": 0.565, "n": 5600}},
        "settings": {"heldout_bytes": 131_072},
        "bleu": {"value": 7.4, "signature": "nrefs:1|case:mixed|eff:no|tok:flores101|smooth:exp|version:2.5.1", "stage": "ppo",
                 "per_language": {"en": {"value": 6.1, "signature": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1"},
                                  "zh": {"value": 8.8, "signature": "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.5.1"}}},
        "bleu_by_stage": {
            "sft": {"value": 7.4, "signature": "nrefs:1|tok:flores101", "per_language": {"en": {"value": 6.1, "signature": "tok:13a"}}},
            "ppo": {"value": 7.9, "signature": "nrefs:1|tok:flores101", "per_language": {"zh": {"value": 9.1, "signature": "tok:zh"}}},
        },
        "chrf_by_stage": {"sft": {"value": 18.2, "signature": "nrefs:1|nc:6|nw:0"}},
        "greetings_by_stage": {"sft": {"en": [18, 20], "zh": [18, 20]}, "ppo": {"en": [18, 20], "zh": [19, 20]}},
        "greetings": {"en": greetings("en"), "zh": greetings("zh")},
        "repetition_rate": {"base": 0.213, "sft": 0.061, "ppo": 0.048},
        "repetition_change": {"value": -0.013, "standard_error": 0.004, "n": 186},
        "reward": {"sft": 0.08, "ppo": 0.61},
        "samples": [
            {"language": "en", "prompt": "Hello, who are you?" + hostile,
             "base": "Hello, who are you? The village is in the district of the county, and the population was 1,204 in the "
                     "year of the census." + hostile,
             "sft": "I am a chat bot.\nNice to meet you!", "ppo": "I am a chat bot. Nice to meet you! How are you today?"},
            {"language": "zh", "prompt": "你好，请介绍一下你自己。",
             "base": "第三条 国家机关应当依照本法规定，加强对有关工作的监督管理，保障当事人的合法权益。", "sft": "你好，我是一个机器人。",
             "ppo": "你好！我是一个聊天机器人，很高兴认识你。"},
            {"language": "en", "prompt": "Hi\n→ Hello\nTell me something about the moon.",
             "messages": [{"role": "user", "content": "Hi" + hostile}, {"role": "assistant", "content": "Hello"},
                          {"role": "user", "content": "Tell me something about the moon."}], "base": "", "sft": "The moon is a planet.",
             "ppo": "The moon goes around the earth."},
        ],
        "seconds": 48.0,
    }  # fmt: skip


def _pretrain_rows(steps: int) -> list[dict[str, Any]]:
    rows = []
    for step in range(1, steps + 1):
        done = step / steps
        loss = 3.55 + 5.4 * math.exp(-8 * done) + 0.35 * (1 - done) + random.gauss(0, 0.06)
        rate = 0.003 * min(1, step / 20) * min(1, (1 - done) / 0.4 + 0.02)
        row = {"step": step, "tokens": step * 2048, "loss": loss, "learning_rate": rate, "gradient_norm": 0.4 + 1.5 *
               math.exp(-10 * done) + abs(random.gauss(0, 0.05)), "tokens_per_second": random.gauss(3130, 60),
               "seconds": step * 0.66}  # fmt: skip
        if step % 60 == 0:
            row["heldout_loss"] = loss + 0.05
        rows.append(row)
    return rows


def _sft_rows(steps: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "tokens": step * 1340, "loss": 1.7 + 1.8 * math.exp(-step / 60) + random.gauss(0, 0.08),
         "learning_rate": 0.001 * (1 - step / steps), "gradient_norm": random.gauss(0.8, 0.1), "tokens_per_second":
         random.gauss(4800, 90), "seconds": step * 0.28} | ({"heldout_loss": 2.0 + 1.6 * math.exp(-step / 60)} if step %
                                                             (steps // 6) == 0 else {})
        for step in range(1, steps + 1)
    ]  # fmt: skip


def _reward_rows(steps: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "loss": 0.45 + 0.24 * math.exp(-step / 50) + random.gauss(0, 0.05), "learning_rate": 0.0005,
         "accuracy": min(1, 0.76 - 0.25 * math.exp(-step / 40) + random.gauss(0, 0.06)), "gradient_norm": random.gauss(2, 0.3)}
        for step in range(1, steps // 3)
    ]  # fmt: skip


def _ppo_rows(steps: int) -> list[dict[str, Any]]:
    count = 20
    return [
        {"step": step * 16, "score": 0.65 - 0.5 * math.exp(-step / 6), "reward": 0.6 - 0.5 * math.exp(-step / 6) + random.gauss(0, 0.04), "kl": 3.1 * step / count,
         "entropy": 2.1 - 0.5 * step / count, "clip_fraction": 0.1 + random.gauss(0, 0.02), "explained_variance":
         0.6 - 0.6 * math.exp(-step / 3), "eos_rate": 0.94 + 0.002 * step, "length": 17 - 0.06 * step, "value_loss": 0.3,
         "learning_rate": 2e-5, "tokens": step * 9000}
        for step in range(1, count + 1)
    ]  # fmt: skip


def _classify_rows(steps: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "loss": 3.1 * math.exp(-step / 40) + 1, "class_loss": 1.1 * math.exp(-step / 30), "language_loss": 3.9,
         "accuracy": 1 - 0.6 * math.exp(-step / 30), "learning_rate": 0.001 * (1 - step / 97), "tokens": step * 2200}
        | ({"heldout_accuracy": 0.8} if step == 96 else {})
        for step in range(1, 97)
    ]  # fmt: skip


def _recurrent_rows(steps: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "loss": 4.9 + 4 * math.exp(-step / 40), "learning_rate": 0.004 * (1 - step / 401)}
        | ({"valid_perplexity": 140 + 900 * math.exp(-step / 60)} if step % 50 == 0 else {})
        for step in range(1, 401)
    ]


def _translate_rows(steps: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "loss": 2.3 + 6.6 * math.exp(-step / 80), "plain_loss": 1.0 + 7.9 * math.exp(-step / 80),
         "learning_rate": 0.001 * min(step / 60, (60 / step) ** 0.5), "tokens_per_second": 4100.0}
        | ({"validation_loss": 1.55 + 3 * math.exp(-step / 90), "validation_perplexity": 4.8 + 90 * math.exp(-step / 90),
            "validation_bleu": 47 * (1 - math.exp(-step / 120)), "validation_bleu_signature": "tok:13a"} if step % 60 == 0 else {})
        for step in range(1, 601)
    ]  # fmt: skip


RESULTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "tokenizer": _tokenizer,
    "pretrain": _pretrain,
    "sft": _sft,
    "reward": _reward,
    "ppo": _ppo,
    "evaluate": _evaluate,
    "classify": _classify,
    "bag_of_words": _bag_of_words,
    "ngram": _ngram,
    "recurrent": _recurrent,
    "translate": _translate,
}
ROWS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "pretrain": _pretrain_rows,
    "sft": _sft_rows,
    "reward": _reward_rows,
    "ppo": _ppo_rows,
    "classify": _classify_rows,
    "recurrent": _recurrent_rows,
    "translate": _translate_rows,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "tokenizer": {"vocabulary_size": 8192, "sample_megabytes": 8.0},
    "pretrain": {"size": "small", "steps": 600, "sources": [{"name": "encyclopaedia", "weight": 1.0}, {"name": "law"}],
                 "optimizer": {"muon": True, "betas": [0.9, 0.95], "weight_decay": 0.0}, "seed": None},
    "sft": {"steps": 300, "epochs": 3.0},
    "reward": {"steps": 160, "margin": False},
    "ppo": {"iterations": 20, "clip": 0.2, "kl_coefficient": 0.05, "gae_lambda": 0.95},
    "evaluate": {"prompts": 128},
    "classify": {"epochs": 3, "auxiliary_weight": 0.5},
    "bag_of_words": {"weighting": "tf-idf"},
    "ngram": {"order": 2},
    "recurrent": {"corpus": "words", "epochs": 8.0},
    "translate": {"from_language": "fr", "to_language": "en", "label_smoothing": 0.1, "epochs": 20},
}  # fmt: skip
