from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from duihua.cli.main import VERBS, main
from duihua.errors import DataError
from duihua.stages import STAGES
from duihua.version import __version__

RUN = [sys.executable, "-c", "import sys; from duihua.cli.main import main; sys.exit(main())"]
HEAVY = ("torch", "numpy", "pydantic", "tyro", "yaml", "rich", "fastapi", "sqlalchemy", "tokenizers", "matplotlib")


def imported_by(words: list[str]) -> set[str]:
    """Names of the packages that a command has imported when it ends."""
    program = (
        "import sys\nfrom duihua.cli.main import main\n"
        f"try:\n    main({words!r})\nfinally:\n    print('\\n#', *{{name.split('.')[0] for name in sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def stand_in(monkeypatch: pytest.MonkeyPatch, action: Callable[[list[str]], int]) -> None:
    """Make `duihua doctor` do something else."""
    monkeypatch.setitem(VERBS, "doctor", ("duihua.stand_in", "a stand-in"))
    monkeypatch.setitem(sys.modules, "duihua.stand_in", SimpleNamespace(main=action))  # type: ignore[arg-type]


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def action(argv: list[str]) -> int:
        raise error

    return action


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    assert not imported_by(words) & set(HEAVY)


def test_the_import_check_sees_a_heavy_import() -> None:
    assert "yaml" in imported_by(["frobnicate"])  # looking for the nearest name reads the config package


def test_help_of_a_stage_imports_no_torch_and_shows_the_docstrings() -> None:
    assert "torch" not in imported_by(["pretrain", "--help"])
    shown = subprocess.run([*RUN, "pretrain", "--help"], capture_output=True, text=True, check=True).stdout
    for text in ("--steps", "--optimizer.matrix-learning-rate", "Muon's rate", "--input ROLE=DIR", "--shape.width"):
        assert text in shown
    assert "sources.1.name" not in shown


def test_help_lists_every_verb_and_every_stage_is_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in VERBS)
    assert set(STAGES) <= set(VERBS)
    assert all(VERBS[stage][0] in ("duihua.cli.stage", f"duihua.cli.{stage}") for stage in STAGES)
    for name, stage in STAGES.items():  # a verb with a module of its own does more than the stage
        assert VERBS[name][1] == f"stage: {stage.help}" or VERBS[name][0] != "duihua.cli.stage"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"duihua {__version__}\n"
    assert main(["--version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": __version__}


def test_no_word_shows_the_help_and_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: duihua VERB" in capsys.readouterr().out


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrian"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "duihua: there is no command 'pretrian'. The nearest known name is 'pretrain'; `duihua --help` lists them all.\n"
    )


def test_hyphens_and_underscores_of_a_verb_are_one(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("bag-of-words", "bag_of_words"):
        assert main([word, "runs/x"]) == 2
        assert "Add --predict FILE" in capsys.readouterr().err
    assert main(["bag-of-word"]) == 2
    assert "no command 'bag-of-word'" in capsys.readouterr().err


def test_a_users_mistake_is_one_line_and_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(monkeypatch, raising(DataError("is empty", where="a.txt:3", remedy="Add text")))
    assert main(["doctor"]) == 2
    assert capsys.readouterr() == ("", "duihua: a.txt:3: is empty. Add text.\n")
    assert main(["doctor", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"problem": "is empty", "where": "a.txt:3", "remedy": "Add text"}}
    assert err == "duihua: a.txt:3: is empty. Add text.\n"


def test_a_full_disk_is_one_line_and_a_fault_of_ours_is_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, raising(OSError(errno.ENOSPC, "No space left on device", "x.bin")))
    assert main(["doctor"]) == 2
    assert "x.bin: no space left on device. Free some space" in capsys.readouterr().err
    stand_in(monkeypatch, raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])
    stand_in(monkeypatch, raising(OSError(errno.EBADF, "Bad file descriptor")))
    with pytest.raises(OSError, match="Bad file"):
        main(["doctor"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, raising(KeyboardInterrupt()))
    assert main(["doctor"]) == 130


@pytest.mark.parametrize(("code", "result"), [(None, 0), (0, 0), (2, 2), ("text", 1)])
def test_a_parser_that_exits_gives_its_code(monkeypatch: pytest.MonkeyPatch, code: object, result: int) -> None:
    stand_in(monkeypatch, raising(SystemExit(code)))
    assert main(["doctor"]) == result


def test_a_verb_gets_its_own_words_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    stand_in(monkeypatch, lambda argv: seen.append(argv) or 0)  # type: ignore[func-returns-value]
    assert main(["doctor", "--json", "a", "doctor"]) == 0
    assert main(["--json", "doctor", "b"]) == 0
    assert seen == [["--json", "a", "doctor"], ["--json", "b"]]


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    program = (
        "import sys\nfrom types import SimpleNamespace\nfrom duihua.cli import main as command\n"
        "def talk(argv):\n    while True: print('x' * 1000)\n"
        "command.VERBS['doctor'] = ('talker', '')\nsys.modules['talker'] = SimpleNamespace(main=talk)\n"
        "sys.exit(command.main(['doctor']))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_every_verb_answers_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert main([verb, "--help"]) == 0, verb
        shown = capsys.readouterr().out
        assert f"duihua {verb}" in shown
        assert "--json" in shown or verb == "data"  # whose own verbs take it


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    shown = subprocess.check_output([sys.executable, "-m", "duihua", "--version"], text=True, cwd=tmp_path)
    assert shown == f"duihua {__version__}\n"


def test_a_remedy_that_asks_keeps_its_mark() -> None:
    assert str(DataError("none", where="x", remedy="Did you mean y?")) == "x: none. Did you mean y?"
    assert str(DataError("none", where="x", remedy="Mend it")) == "x: none. Mend it."
