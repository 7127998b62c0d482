"""Every error that a user can cause says what to do about it: read off the source, raise by raise."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

import duihua
import duihua.errors

SOURCE = Path(duihua.__file__).parent
BASE = {name for name, value in vars(duihua.errors).items() if isinstance(value, type) and issubclass(value, Exception)}


def parts_of(text: str) -> tuple[list[ast.ClassDef], list[ast.Call]]:
    """The classes and the calls of a file."""
    nodes = list(ast.walk(ast.parse(text)))
    return [one for one in nodes if isinstance(one, ast.ClassDef)], [one for one in nodes if isinstance(one, ast.Call)]


def names_of_errors(classes: Iterable[ast.ClassDef]) -> set[str]:
    """`DuihuaError`, its subclasses, and the subclasses of those, wherever they are defined."""
    known, found, before = list(classes), set(BASE), 0
    while len(found) > before:
        before = len(found)
        found |= {node.name for node in known if any(name_of(base) in found for base in node.bases)}
    return found


def name_of(node: ast.expr) -> str:
    """The last name of `errors.DataError` or `DataError`; "" for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def without_remedy(classes: list[ast.ClassDef], calls: list[ast.Call], errors: set[str]) -> list[int]:
    """The lines where one of these errors is made with no remedy, or with an empty one.

    A class of its own that passes a remedy to its base (`super().__init__(..., remedy=...)`) says it there for all of them.
    """
    own = [node for node in classes if node.name in errors - BASE]
    inherited = {node.name: [inner for inner in ast.walk(node) if _calls_base(inner)] for node in own}
    settled = {name for name, found in inherited.items() if any(_says(call) for call in found)}
    made = [call for call in calls if name_of(call.func) in errors - settled]
    made += [call for found in inherited.values() for call in found]
    return sorted(call.lineno for call in made if not _says(call))


def _calls_base(node: ast.AST) -> TypeGuard[ast.Call]:
    """`super().__init__(...)`"""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "__init__"
        and isinstance(node.func.value, ast.Call)
        and name_of(node.func.value.func) == "super"
    )


def _says(call: ast.Call) -> bool:
    """Whether a remedy is given that is not plainly empty."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "remedy"]
    return any(not (isinstance(value, ast.Constant) and not value.value) for value in given)


def test_every_error_of_a_user_has_a_remedy() -> None:
    files = {path: parts_of(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    errors = names_of_errors(node for classes, _ in files.values() for node in classes)
    assert {"DataError", "SearchStoppedError", "NotFoundError"} <= errors
    found = [
        f"{path.relative_to(SOURCE)}:{line}" for path, parts in files.items() for line in without_remedy(*parts, errors)
    ]
    assert found == []


def test_the_same_reading_finds_what_is_missing() -> None:
    classes, calls = parts_of(
        """
class OwnError(DataError):
    def __init__(self):
        super().__init__("always the same")

class SettledError(DataError):
    def __init__(self):
        super().__init__("always the same", remedy="Wait")

raise DataError("nothing said", where="here")
raise errors.ConfigError("an empty one", remedy="")
raise OwnError()
raise SettledError()
raise DataError("well", remedy="Do this")
raise DataError("passed on", remedy=error.remedy)
raise ValueError("ours")
error = GenerationError("made before it is raised")
"""
    )
    errors = names_of_errors(classes)
    assert errors - BASE == {"OwnError", "SettledError"}
    assert without_remedy(classes, calls, errors) == [4, 10, 11, 12, 17]
