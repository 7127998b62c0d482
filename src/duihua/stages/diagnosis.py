"""What a doctor of a model or a run found, thing by thing, and the verdict that follows. No torch here.

Why not one number: a verdict that cannot say why helps nobody. Each finding says what was looked at, what was found, what it
means and what to change; the verdict is "fit" when none of them is a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ok: as it should be; note: works, with something to know; problem: in the way.

    meaning: what it means where it is not ok; remedy: what to change, a sentence without a full stop.
    """

    check: str
    state: Literal["ok", "note", "problem"]
    found: str
    meaning: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings and the figures behind them."""

    findings: Sequence[Finding]
    measured: dict[str, Any]

    @property
    def problems(self) -> list[Finding]:
        """The findings that stand in the way."""
        return [finding for finding in self.findings if finding.state == "problem"]

    @property
    def fit(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems

    def to_mapping(self) -> dict[str, Any]:
        """As it is printed under --json: fit, why_not, findings, measured."""
        return {
            "fit": self.fit,
            "why_not": [f"{finding.check}: {finding.found}" for finding in self.problems],
            "findings": [asdict(finding) for finding in self.findings],
            "measured": self.measured,
        }
