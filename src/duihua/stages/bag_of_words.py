"""The bag-of-words stage: classify texts by which words they hold, and measure that as every classifier is measured.

Its numbers stand beside those of the classify stage on the same source: the same held-out part, the same scores, the same
majority class. On topics and on reviews a bag is hard to beat with few examples; on pairs of sentences it is of no use.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from duihua import console
from duihua.data.records import Labelled, hash_order
from duihua.data.source import open_source
from duihua.errors import DataError
from duihua.models.counts.bag import BagOfWords
from duihua.models.counts.bag_bundle import save_bag
from duihua.models.counts.bag_classifier import BagClassifier
from duihua.models.model_card import ModelCard
from duihua.stages import class_tables
from duihua.stages.class_scores import score_seeds
from duihua.stages.configs.bag_of_words import BagOfWordsConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.left_out import say_left_out
from duihua.stages.pretrain import source_terms
from duihua.stages.task_examples import class_names, label_counts, label_name, mistakes, positive_class, read_records
from duihua.text.segmentation import Segmentation
from duihua.text.words import WordVocabulary


def run(config: BagOfWordsConfig, context: StageContext) -> StageResult:
    """Train on `config.source` and give a bag-of-words bundle; needs no input.

    Raises ConfigError for a source that is not labelled, DataError for pairs of texts, one class, or nothing to learn from.
    """
    started = time.monotonic()
    source = open_source(config.source, context.data_directory)
    where = f"bag_of_words.source, {source.name}"
    records = read_records(source, "train", "classification", stage="bag_of_words")
    left_out = {"train": source.left_out.to_mapping()}
    say_left_out("bag_of_words", f"{source.name}, train", source.left_out.counts)
    tested = read_records(source, "heldout", "classification", config.test_limit, "bag_of_words")
    left_out["heldout"] = source.left_out.to_mapping()
    if left_out["heldout"] != left_out["train"]:  # where both parts are lines of one file, they were said above
        say_left_out("bag_of_words", f"{source.name}, heldout", source.left_out.counts)
    classes = class_names(records, where)
    positive = positive_class(config.positive_class, classes, "bag_of_words")
    truth = [label_name(record) for record in tested]
    unknown = sorted(set(truth) - set(classes))
    if unknown:
        raise DataError(
            f"the held-out part has classes that the training part lacks: {', '.join(map(repr, unknown))}",
            where=where,
            remedy="Give training examples of every class",
        )
    segmentation: Segmentation = config.segmentation or ("jieba" if source.language == "zh" else "marks")
    console.say(
        f"bag_of_words: {min(config.limit or len(records), len(records)):,} training and {len(tested):,} held-out examples, "
        f"{len(classes)} classes, {config.weighting}, {config.classifier}"
    )
    answers: list[list[str]] = []
    for number in range(config.seeds):
        drawn = draw(records, config.limit, context.seed + number)
        bag, classifier = learn(
            [_text(record) for record in drawn], [label_name(r) for r in drawn], config, segmentation
        )
        answers.append(classifier.predict(bag.vectors(_text(record) for record in tested)))
        if number == 0:
            kept = bag, classifier
    scores = score_seeds(truth, answers, classes, positive, [label_name(record) for record in records], context.seed)
    bag, classifier = kept
    metrics: dict[str, Any] = {
        "task": "classification",
        "classes": list(classes),
        "weighting": config.weighting,
        "classifier": config.classifier,
        "segmentation": segmentation,
        "words": bag.columns,
        "examples": {"train": label_counts(records), "heldout": label_counts(tested)},
        "trained_on": min(config.limit or len(records), len(records)),
        "left_out": left_out,
        **scores.metrics(),
        "telling_words": classifier.telling_words(bag.vocabulary.words),
        "mistakes": mistakes(tested, answers[0]),
        "terms": source_terms([source]),
        "seconds": time.monotonic() - started,
    }
    class_tables.show(metrics, "bag_of_words")
    for label, words in metrics["telling_words"].items():
        console.say(f"bag_of_words: what tells {label!r}: {', '.join(words)}")
    card = ModelCard(
        title="Duihua bag of words",
        stage="bag_of_words",
        description=f"Classifies texts by their words alone, learnt from {source.name}. Ask it with "
        "`duihua bag_of_words DIR --predict FILE`.",
        terms=metrics["terms"],
        metrics=scores.card(),
    )
    save_bag(context.directory, bag, classifier, config.classifier, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def learn(
    texts: Sequence[str], labels: Sequence[str], config: BagOfWordsConfig, segmentation: Segmentation
) -> tuple[BagOfWords, BagClassifier]:
    """Vocabulary, weights of words and classifier, all from the same texts."""
    vocabulary = WordVocabulary.train(texts, config.vocabulary_size, segmentation, config.lowercase)
    bag = BagOfWords.fit(vocabulary, texts) if config.weighting == "tf-idf" else BagOfWords(vocabulary)
    classifier = BagClassifier.fit(
        config.classifier,
        bag.vectors(texts),
        labels,
        pseudo_count=config.pseudo_count,
        regularisation=config.regularisation,
    )
    return bag, classifier


def draw(records: Sequence[Any], limit: int, seed: int) -> list[Any]:
    """`limit` of the records by a hash (0: all of them). Of seed 0 they are those that a source's own limit gives."""
    if not limit:
        return list(records)
    purpose = "order" if seed == 0 else f"seed {seed}"
    return sorted(records, key=lambda record: hash_order(record, purpose))[:limit]


def _text(record: Any) -> str:
    assert isinstance(record, Labelled)
    return record.texts[0]
