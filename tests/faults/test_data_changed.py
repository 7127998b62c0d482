"""A file of data that is edited under a training: going on is refused, and the choice is the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHANGED = "changed since this training began, and it has come to step 7"


def edited(file: Path) -> str:
    """The file's text with its last line written twice."""
    text = file.read_text(encoding="utf-8")
    return text + text.splitlines(keepends=True)[-1]


def test_a_file_that_was_edited_under_a_training_is_refused_until_somebody_chooses(lab: Any, name: str) -> None:
    calm, _ = lab.undisturbed(name)
    data = lab.family(name).data
    output, copy = lab.stopped(name), lab.stopped(name)
    before = {path: path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file() and path.name != ".lock"}
    old = data.read_text(encoding="utf-8")
    data.write_text(edited(data), encoding="utf-8")
    try:
        refused = lab.run(name, output)
        went_on = lab.run(name, copy, None, "--accept-changed-data")
    finally:
        data.write_text(old, encoding="utf-8")
    assert refused.code == 2, refused.said
    last = refused.said.splitlines()[-1]
    assert CHANGED in last
    assert data.name in last or data.parent.name in last
    assert "Put the old content back to go on as before, train anew with another --output, or add" in last
    assert "--accept-changed-data to go on from the checkpoint with the new content" in last
    assert {path: path.read_bytes() for path in before} == before, "nothing is touched"
    assert went_on.code == 0, went_on.said
    assert "going on from step 7" in went_on.said
    assert json.loads((copy / "data.json").read_bytes())["accepted"][0]["step"] == 7
    if name == "pretrain":  # where it is sure to matter; a tenth pair of ten may be drawn or not
        assert not lab.same(copy, calm)
    assert lab.run(name, output).code == 0, "the old content is back"
    assert lab.same(output, calm)
    lab.survived("data", name)


def test_a_file_that_is_edited_while_a_stage_runs_is_noticed_at_its_end(lab: Any) -> None:
    calm, whole = lab.undisturbed("sft")
    data = lab.family("sft").data
    output = lab.fresh("sft")
    old, new = data.read_text(encoding="utf-8"), edited(data)
    try:
        edit = {"kind": "edit_event", "event": whole.events // 2, "path": str(data), "text": new}
        ended = lab.run("sft", output, edit)
    finally:
        data.write_text(old, encoding="utf-8")
    assert ended.code == 2, ended.said
    assert "changed while the stage ran" in ended.said.splitlines()[-1]
    assert not (output / "result.json").exists()
    again = lab.run("sft", output)
    assert again.code == 0, again.said
    assert lab.same(output, calm)
    lab.survived("data-during", "sft")
