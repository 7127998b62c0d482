"""What a classifier reads: texts between three task tokens, one layout for each kind of task.

From: Radford et al. 2018 (GPT-1), section 3.3 and figure 1. A task with structure (two sentences, a question with
options) becomes sequences of tokens that a language model can read, so that nothing new but three embeddings and one
matrix has to be learnt:

    classification    <start> text <extract>
    entailment        <start> premise <delimiter> hypothesis <extract>
    similarity        <start> a <delimiter> b <extract>  and  <start> b <delimiter> a <extract>, their vectors added
    multiple choice   <start> context <delimiter> option <extract>, one sequence for each option

The task tokens are ids behind the embedding's last row (`TaskTokens.behind`), with rows of their own in the classifier.
No tokenizer has them, so no text that a user writes can hold one: the extract token stands once in each sequence, where
we put it.

A sequence longer than the limit is cut, longest part first: every part is cut to one common longest length, so that a
short part stays whole and exchanging two parts changes nothing. Texts lose their end; the context of a choice loses its
beginning, because the options go on from its end, and it is cut alike for all options, by the longest. What was cut is
counted with each example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from duihua.errors import ConfigError, DataError
from duihua.text.tokenizer import Tokenizer

Task = Literal["classification", "entailment", "similarity", "multiple_choice"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True)
class TaskTokens:
    """The ids of the three tokens that stand around a task's texts."""

    start: int
    delimiter: int
    extract: int

    @classmethod
    def behind(cls, vocabulary_size: int) -> TaskTokens:
        """The three ids behind an embedding of `vocabulary_size` rows."""
        return cls(vocabulary_size, vocabulary_size + 1, vocabulary_size + 2)


@dataclass(frozen=True)
class TaskInput:
    """One example as ids: `rows` sequences (one; two for similarity; one an option). cut: tokens of its texts left out."""

    rows: tuple[tuple[int, ...], ...]
    cut: int = 0

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(map(len, self.rows))


def text_count(task: Task) -> int:
    """Texts that an example of the task has, the options of a choice not counted."""
    return 2 if task in ("entailment", "similarity") else 1


class TaskInputs:
    """Encodes the examples of one task for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int, task: Task, length: int) -> None:
        """vocabulary_size: rows of the model's embedding. length: most tokens of a sequence, task tokens included.

        Raises ConfigError where a sequence of that length could not hold a token of each text.
        """
        self.tokenizer, self.task, self.length = tokenizer, task, length
        self.tokens = TaskTokens.behind(vocabulary_size)
        self._parts = 1 if task == "classification" else 2
        if length < 2 * self._parts + 1:
            raise ConfigError(
                f"{length} tokens cannot hold the task tokens and a token of each text",
                where="length",
                remedy=f"Choose {2 * self._parts + 1} or more",
            )

    def encode(self, texts: Sequence[str], options: Sequence[str] = ()) -> TaskInput:
        """The sequences of one example: one text, two texts, or one text and two or more options.

        Raises DataError where the number of texts or options is not the task's.
        """
        wanted = text_count(self.task)
        if len(texts) != wanted:
            raise DataError(f"{self.task} takes {_texts(wanted)}, found {len(texts)}", remedy="Give as many")
        if (self.task == "multiple_choice") != bool(options) or len(options) == 1:
            problem = (
                f"multiple_choice takes two or more options, found {len(options)}"
                if self.task == "multiple_choice"
                else f"{self.task} takes no options"
            )
            raise DataError(problem, remedy="Give options to the task multiple_choice, two or more, and to no other")
        encode = self.tokenizer.encode
        if options:
            return self._choice(encode(texts[0]), [encode(option) for option in options])
        parts = [encode(text) for text in texts]
        most = common_length([len(part) for part in parts], self.length - self._parts - 1)
        kept = [part[:most] for part in parts]
        orders = [kept, kept[::-1]] if self.task == "similarity" else [kept]
        return TaskInput(tuple(self._sequence(order) for order in orders), sum(map(len, parts)) - sum(map(len, kept)))

    def _choice(self, context: list[int], options: list[list[int]]) -> TaskInput:
        most = common_length([len(context), max(map(len, options))], self.length - 3)
        begin = max(0, len(context) - most)
        kept = [option[:most] for option in options]
        rows = tuple(self._sequence([context[begin:], option]) for option in kept)
        return TaskInput(rows, begin + sum(map(len, options)) - sum(map(len, kept)))

    def _sequence(self, parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
        ids = [self.tokens.start, *parts[0]]
        for part in parts[1:]:
            ids += [self.tokens.delimiter, *part]
        return (*ids, self.tokens.extract)


def common_length(lengths: Sequence[int], places: int) -> int:
    """The largest length to which all parts can be cut so that together they take at most `places`."""
    left, most = places, places
    for number, length in enumerate(sorted(lengths)):
        most = left // (len(lengths) - number)
        if length > most:
            return most
        left -= length
    return most


def _texts(count: int) -> str:
    return "one text" if count == 1 else "two texts"
