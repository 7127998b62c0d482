from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from duihua.cli import doctor
from duihua.cli.main import main
from duihua.nn.products import choose, products_by


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room, whatever this machine has left."""
    monkeypatch.setattr("duihua.cli.doctor.shutil.disk_usage", lambda _: SimpleNamespace(free=2**40))


def test_little_room_on_the_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"gib": 1}
    monkeypatch.setattr("duihua.cli.doctor.shutil.disk_usage", lambda _: SimpleNamespace(free=left["gib"] * 2**30))
    assert main(["doctor", "--output", str(tmp_path), "--data", str(tmp_path)]) == 1
    left["gib"] = 100
    assert main(["doctor", "--output", str(tmp_path), "--data", str(tmp_path)]) == 0


@pytest.mark.usefixtures("room")
def test_doctor_names_each_check_and_this_machine_is_healthy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json", "--output", str(tmp_path), "--data", str(tmp_path)]) == 0
    outcome = json.loads(capsys.readouterr().out)
    states = {finding["check"]: finding["state"] for finding in outcome["findings"]}
    assert outcome["healthy"]
    assert states["Python"] == states["torch"] == "ok"
    assert states["starter data"] == "note"
    assert all(finding["remedy"] for finding in outcome["findings"] if finding["state"] == "problem")


@pytest.mark.usefixtures("room")
def test_a_problem_is_shown_with_its_remedy_and_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["doctor", "--output", str(tmp_path / "file"), "--data", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "is a file" in shown
    assert "disk for runs: Choose another folder" in shown
    assert "Problems: 1." in shown


def test_old_versions_and_missing_parts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_python((3, 10, 2)).state == "problem"
    assert doctor.check_python((3, 11, 0)).state == "ok"
    assert doctor.version_numbers("2.9.1+cu128") == (2, 9) < doctor.OLDEST_TORCH <= doctor.version_numbers("2.13.0")
    assert doctor.check_page(tmp_path).state == "note"
    (tmp_path / "index.html").touch()
    assert doctor.check_page(tmp_path).state == "ok"
    monkeypatch.setattr(doctor, "QUICKSTART_DISK", 2**80)
    assert doctor.check_folder("disk", tmp_path).state == "problem"
    monkeypatch.setattr(doctor, "QUICKSTART_MEMORY", 2**80)
    assert doctor.check_memory().state == "problem"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert doctor.check_cores().state == "note"


def test_other_programs_on_the_cores_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("duihua.cores.usable_cores", lambda: 4)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (0.2, 3.0, 3.0))
    assert doctor.check_cores().state == "ok"
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (2.6, 0.1, 0.1))
    found = doctor.check_cores()
    assert (
        found.state == "note" and "other programs keep about 2.6 busy" in found.found and "close them" in found.remedy
    )


def test_who_multiplies_is_said_and_a_wrong_wish_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    with products_by("onednn"):
        assert "fp32 products by oneDNN" in doctor.check_torch().found
    with products_by("torch"):
        assert "fp32 products by torch's own library" in doctor.check_torch().found

    def wrong() -> str:
        return choose({"DUIHUA_PRODUCTS": "abacus"})

    monkeypatch.setattr("duihua.nn.products._chosen", wrong)
    found = doctor.check_torch()
    assert found.state == "problem" and "'abacus' multiplies no matrices" in found.found and "auto" in found.remedy
