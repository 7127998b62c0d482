"""Errors that a user can cause, each with what is wrong, where, and what to do.

Why typed errors and not exceptions of Python's own: the command line shows one clear line for these and a traceback for
everything else, so a traceback always means a fault of ours. `assert` is kept for our own invariants.
"""

from __future__ import annotations


class DuihuaError(Exception):
    """Something that the user can put right.

    problem: what is wrong, without a full stop. where: file, line and field, or the name of the setting.
    remedy: what to do about it, as a sentence without a full stop (a question keeps its mark).
    """

    def __init__(self, problem: str, *, where: str = "", remedy: str = "") -> None:
        self.problem, self.where, self.remedy = problem, where, remedy
        super().__init__(problem)

    def __str__(self) -> str:
        line = f"{self.where}: {self.problem}" if self.where else self.problem
        if not self.remedy:
            return f"{line}."
        return f"{line}. {self.remedy}" + ("" if self.remedy.endswith("?") else ".")


class ConfigError(DuihuaError):
    """A recipe, a flag or a config field is wrong."""


class DataError(DuihuaError):
    """A source, a file of data or a record in it is wrong."""


class BundleError(DuihuaError):
    """A model directory is missing parts, broken, or of another kind or version."""


class CheckpointError(DuihuaError):
    """A checkpoint cannot be used, or belongs to another configuration."""


class TrainingError(DuihuaError):
    """Training cannot go on: not a number, no memory, nothing to learn from."""


class GenerationError(DuihuaError):
    """A request for text cannot be served as asked."""


class ServingError(DuihuaError):
    """The server cannot start or a stored conversation cannot be read."""
