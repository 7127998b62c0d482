"""What a trained translator says at the end of its stage: the scores of its test part, some of its sentences, the curve.

The test part is translated here, once, by the weights that were chosen without it.
"""

from __future__ import annotations

from typing import Any

from duihua import console
from duihua.engine.translation_model import TranslationModel
from duihua.evaluation.bleu import Score
from duihua.evaluation.translation_scores import TranslationScores, score_translations
from duihua.stages.configs.translate import TranslateConfig
from duihua.stages.context import StageContext
from duihua.stages.translation_pairs import Pairs, questions
from duihua.training.metrics_file import read_metrics

SHOWN = 5
"""Sentences of the test part whose translations stand in the result beside the samples that were asked for."""


def test_scores(
    config: TranslateConfig, model: TranslationModel, pairs: Pairs
) -> dict[str, tuple[TranslationScores, list[tuple[str, str, str]]]]:
    """Direction -> (scores on the test part, a few of its sentences with reference and translation)."""
    found = {}
    for direction in config.directions:
        sources, references = questions(pairs.test, direction, config.test_limit)
        if not sources:
            continue
        name = "-".join(direction)
        with console.progress(len(sources), "sentence", f"translate: test {name}, beam {config.search.beam}") as bar:
            answers = model.translate(sources, direction, config.search, cut=True, advance=bar.advance)
        hypotheses = [answer[0].text for answer in answers]
        scores = score_translations(hypotheses, references, direction[1], sources)
        shown = [(sources[i], references[i][0], hypotheses[i]) for i in range(min(SHOWN, len(sources)))]
        found[name] = (scores, shown)
    if not found:
        console.say("translate: the sources have no test part, so nothing is scored")
    return found


def samples(config: TranslateConfig, model: TranslationModel, tested: Any) -> list[dict[str, Any]]:
    """The sentences asked for, in the first direction, and a few of each test part, with their translations."""
    found: list[dict[str, Any]] = []
    if config.samples:
        direction = config.directions[0]
        answers = model.translate(config.samples, direction, config.search, cut=True)
        for source, answer in zip(config.samples, answers, strict=True):
            found.append({"direction": "-".join(direction), "source": source, "translation": answer[0].text})
    for name, (_, shown) in tested.items():
        found += [
            {"direction": name, "source": source, "translation": written, "reference": reference}
            for source, reference, written in shown
        ]
    return found


def curve(context: StageContext) -> list[dict[str, Any]]:
    """The evaluations during training: step, validation loss, BLEU and its signature."""
    names = ("step", "validation_loss", "validation_bleu", "validation_bleu_signature")
    lines = read_metrics(context.directory / "metrics.jsonl")
    return [{name: line[name] for name in names} for line in lines if "validation_loss" in line]


def show(metrics: dict[str, Any]) -> None:
    """Print the scores of the stage's result."""
    for name, test in metrics["test"].items():
        for score in ("bleu", "chrf"):
            found, interval = Score(**test[score]), test[f"{score}_interval"]
            shown = f"{found.value:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"
            console.say(f"translate: {name} {score} {shown}  {found.signature}")
        rows = [[each["length"], each["sentences"], each["bleu"]["value"]] for each in test["by_length"]["buckets"]]
        unit = test["by_length"]["unit"]
        console.table(f"translate: {name}, BLEU by the source's length", [unit, "sentences", "BLEU"], rows)
    for sample in metrics["samples"]:
        console.say(f"  {sample['source']}\n    -> {sample['translation']}")
