"""The data of a run, one value a source: its terms, the stages that learnt from it, and how much of it is known.

Why apart from the page: stages record amounts in their own units (a corpus in tokens, fine-tuning in conversations, the
reward model in pairs), and bundles hand terms on, so one source comes up in many results. Here they become one list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from duihua.report.run_record import RunRecord, StageRecord, dig, finite

Amount = tuple[str, float]


@dataclass
class SourceFacts:
    """One source. terms: licence, homepage and the rest as the stages state them; amounts: (unit, count)."""

    name: str
    terms: dict[str, Any] = field(default_factory=dict)
    stages: list[StageRecord] = field(default_factory=list)
    amounts: list[Amount] = field(default_factory=list)


def sources(record: RunRecord) -> list[SourceFacts]:
    """Every source whose terms a stage states, in the order of their first appearance."""
    found: dict[str, SourceFacts] = {}
    for stage in record.stages:
        for terms in stage.result.get("terms") or []:
            if not isinstance(terms, Mapping):
                continue
            name = str(terms.get("name") or "")
            known = found.setdefault(name, SourceFacts(name))
            for key, value in terms.items():
                if value not in (None, ""):
                    known.terms.setdefault(key, value)
            known.stages.append(stage)
    for name, facts in found.items():
        facts.amounts = _amounts(record, name, facts.terms)
    return list(found.values())


def _amounts(record: RunRecord, name: str, terms: Mapping[str, Any]) -> list[Amount]:
    amounts: list[tuple[str, Any]] = [("records", terms.get("records"))]
    pretrain = record.result("pretrain")
    if [one.get("name") for one in pretrain.get("terms") or [] if isinstance(one, Mapping)] == [name]:
        amounts.append(("tokens", dig(pretrain, "settings.corpus_tokens")))
    for one in record.result("sft").get("sources") or []:
        if isinstance(one, Mapping) and one.get("name") == name:
            amounts.append(("conversations", one.get("conversations")))
    for one in record.result("reward").get("sources") or []:
        if isinstance(one, Mapping) and one.get("source") == name and one.get("kind") == "human":
            amounts.append(("heldout_pairs", one.get("n")))
    return [(unit, float(value)) for unit, value in amounts if finite(value)]
