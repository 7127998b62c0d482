"""Exact match by hand, and classes out of rows."""

from __future__ import annotations

import pytest

from duihua.errors import DataError
from duihua.evaluation.sequence_accuracy import exact_match, predictions_score


def test_strict_and_normalised_matches_differ_where_a_reader_sees_no_difference() -> None:
    said = ["I love you.", "i LOVE you ", "我爱你", "you"]
    strict, loose = exact_match(said, [["I love you."], ["I love you."], ["他", "我爱你！"], ["I love you."]])
    assert (strict.value, strict.n) == (0.25, 4)
    assert loose.value == 0.75
    assert strict.low < 0.25 < strict.high
    assert exact_match(["a"], [["b", " a"]])[0].value == 1.0, "any of the references"
    with pytest.raises(DataError, match="1 hypotheses, 2 references"):
        exact_match(["a"], [["a"], ["b"]])


def test_classes_are_scored_and_bad_rows_named() -> None:
    rows = [({"prediction": p, "label": t}, f"f:{i}") for i, (p, t) in enumerate([("a", "a"), ("b", "a"), (1, 1)], 1)]
    found = predictions_score(rows)
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.confusion.labels == ("1", "a", "b")
    with pytest.raises(DataError, match="f:1: no label"):
        predictions_score([({"prediction": "a"}, "f:1")])
    with pytest.raises(DataError, match="neither"):
        predictions_score([({"prediction": 0.5, "label": "a"}, "f:1")])
    with pytest.raises(DataError, match="no predictions"):
        predictions_score([])
