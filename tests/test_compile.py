"""tools/compile.py makes extension modules of the request path that say and do what their source does."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.shipped import PYPROJECT, ROOT

COMPILED: list[str] = PYPROJECT["tool"]["gateway"]["compiled"]


def load_tool() -> ModuleType:
    """tools/ is no package."""
    spec = importlib.util.spec_from_file_location("compile_tool", ROOT / "tools" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()
MODULES: dict[str, Any] = TOOL.read_modules(ROOT / "gateway", COMPILED)


def test_what_is_compiled_is_there_and_in_order() -> None:
    """Every module named in pyproject.toml exists, once, in the order of names."""
    assert sorted(set(COMPILED)) == sorted(COMPILED)
    assert [name for name in COMPILED if not (ROOT / (name.replace(".", "/") + ".py")).exists()] == []


@pytest.mark.parametrize("name", COMPILED)
def test_a_prepared_source_keeps_its_lines(name: str) -> None:
    """A traceback from a compiled module names the line of the source.

    Annotations and `slots=True` are gone, and numbers stand in place of their names; nothing else is different.
    """
    module = MODULES[name]
    prepared = TOOL.prepared_source(module)
    assert len(prepared.splitlines()) == len(module.source.splitlines())

    def bare(tree: ast.AST) -> str:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in module.numbers:
                node.id = module.numbers[node.id].decode()
            elif isinstance(node, ast.arg):
                node.annotation = None
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                node.returns = None
            elif isinstance(node, ast.ClassDef):
                node.decorator_list, node.bases = [], []
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                node.annotation = ast.Name("object")
        text = ast.unparse(tree)
        return "\n".join(line.replace(": object = ", " = ") for line in text.splitlines())

    assert bare(ast.parse(prepared)) == bare(ast.parse(module.source))


def test_classes_with_slots_become_types_with_their_fields_and_methods() -> None:
    """A field has the type that the source says, where that is one of these types; a coroutine is no direct call."""
    text = TOOL.declaration(MODULES["gateway.server.cycle"])
    assert "from gateway.strand cimport Strand" in text
    assert "    cdef public Strand strand" in text
    assert "    cpdef object feed(self, bytes chunk)" in text
    assert "receive" not in text


def test_frozen_values_stay_frozen() -> None:
    """A field of a frozen dataclass cannot be set from Python."""
    assert "    cdef readonly Token token" in TOOL.declaration(MODULES["gateway.policy"])


_STRANDS = """
import asyncio
import gateway, gateway.fields, gateway.strand
from gateway.strand import Bell, Strand

async def main():
    loop, strands, seen = asyncio.get_running_loop(), set(), []
    bell = Bell(loop)
    async def work():
        try:
            await bell.wait()
            seen.append("rung")
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
    strand = Strand(work(), loop, strands)
    strand.start()
    await asyncio.sleep(0.01)  # inside a task a step waits for the next turn
    bell.ring()
    await asyncio.sleep(0.01)
    strand.cancel()
    await strand
    assert seen == ["rung", "cancelled"] and not strands, (seen, strands)

asyncio.run(main())
assert list(gateway.fields.FieldLines(b"a: b\\r\\n", -1)) == [(b"a", b"b")]
print(gateway.build(), gateway.strand.__file__.endswith(".py"), gateway.fields.__file__.endswith(".py"))
"""


def test_the_exercise_goes_through() -> None:
    """What the compiler is trained with is answered as it should be, or it would learn the paths of failures."""
    done = subprocess.run(
        [sys.executable, "-P", "tools/exercise.py", str(ROOT)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_trained_compiler_has_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One module, compiled twice: the second time with what was seen of the first."""
    pytest.importorskip("Cython", reason="the `dev` extra brings Cython")
    if shutil.which("cc") is None or not TOOL.is_gcc():
        pytest.skip("gcc alone is trained")
    monkeypatch.setenv("CFLAGS", "-O0")
    (built,) = TOOL.compile_package(tmp_path, ["gateway.fields"], trained=True)
    assert built.exists()
    assert [path.stem for path in tmp_path.rglob("*.gcda")] == ["fields"]
    assert b"__gcov" not in built.read_bytes()


def test_what_comes_out_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small modules, compiled for real: coroutines, wake-ups and cancellation as in Python, and `build` says so."""
    pytest.importorskip("Cython", reason="the `dev` extra brings Cython")
    monkeypatch.setenv("CFLAGS", "-O0")
    try:
        TOOL.compile_package(tmp_path, ["gateway.fields", "gateway.strand"])
    except subprocess.CalledProcessError:
        if subprocess.run(["cc", "--version"], capture_output=True, check=False).returncode:
            pytest.skip("there is no C compiler")
        raise
    done = subprocess.run(
        [sys.executable, "-P", "-c", _STRANDS],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout.split() == ["compiled", "False", "False"], done.stderr
