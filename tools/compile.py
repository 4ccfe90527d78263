"""Compiles the request path with Cython: the same Python source, as extension modules beside it.

    python tools/compile.py DEST        copies gateway/ into DEST and compiles the modules named in pyproject.toml there
    python tools/compile.py --trained DEST    twice: gcc watches what `tools/exercise.py` does with the first result

Nothing in the source speaks Cython. What it needs to know beyond Python is read off the source here:

    a class with `__slots__`, or a dataclass with `slots=True`   an extension type: attributes are fields of a struct
    a plain method or function of a compiled module              can be called without going through Python (`cpdef`)
    an annotation that names an extension type                   such calls, and such fields, in other modules too
    an annotation that names one of the builtins in `EXACT`      its own look-ups and methods, without a call by name
    a module's `NAME: Final = 58`                                the number itself, where the name is read

Every other annotation is blanked out before Cython reads the file, because Cython takes some of them for more than
they say here (`float` for a C double, which no None and no int can be). Blanked, not removed: the line numbers of a
traceback hold.

Trained, the same instructions take a third less time: what is never taken (half of what Cython writes is for errors)
lies apart, so that what is taken fits into the processor's caches. It needs gcc and what the gateway itself needs.

Without a compiler, or without this, the package is the same in pure Python; `gateway --version` says which it is.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Builtin types whose annotations here hold to the letter: no subclass is meant, and Cython refuses one.
EXACT = frozenset({"bytes", "dict", "list", "set"})
DROPPED_BASES = ("PlainProtocol", "Generic[T]")  # they mean something to the type checker only

EXERCISE_S = 300.0
WATCHING = {"CFLAGS": "-fprofile-generate -fprofile-update=single", "LDFLAGS": "-fprofile-generate"}
# What was not exercised is compiled as without training, instead of as small as possible.
LEARNED = {"CFLAGS": "-fprofile-use -fprofile-partial-training -fprofile-correction", "LDFLAGS": "-fprofile-use"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
TypeName = tuple[str, str]  # module and class


def compiled_modules() -> list[str]:
    """The modules to compile, from pyproject.toml: dotted names."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    modules: list[str] = settings["tool"]["gateway"]["compiled"]
    return modules


@dataclass
class Module:
    """One module: its source, and what Cython is told of it."""

    name: str
    source: str
    tree: ast.Module
    types: dict[str, ast.ClassDef] = field(default_factory=dict)  # its own extension types
    visible: dict[str, TypeName] = field(default_factory=dict)  # extension types by the name they have here
    functions: dict[str, TypeName] = field(default_factory=dict)  # imported functions that can be called directly
    numbers: dict[str, bytes] = field(default_factory=dict)  # whole numbers that nothing changes, as they are written

    @property
    def file(self) -> str:
        """Below the folder of the package."""
        return self.name.replace(".", "/") + ".py"


# --- what becomes an extension type, and what can be called directly --------------------------------------------------


def slots_of(cls: ast.ClassDef) -> list[str] | None:
    """The names in `__slots__`, or of the fields of a dataclass with slots; None for any other class."""
    options = dataclass_options(cls)
    if options is not None:
        if "slots" not in options:
            return None
        return [s.target.id for s in cls.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    for statement in cls.body:
        if (
            isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and statement.targets[0].id == "__slots__"
        ):
            return list(ast.literal_eval(statement.value))
    return None


def dataclass_options(cls: ast.ClassDef) -> set[str] | None:
    """The options that are set on a dataclass; None for a class that is none."""
    for decorator in cls.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "dataclass":
            return {
                str(option.arg)
                for option in decorator.keywords
                if isinstance(option.value, ast.Constant) and option.value.value is True
            }
        if getattr(decorator, "id", "") == "dataclass":
            return set()
    return None


def find_types(modules: dict[str, Module]) -> None:
    """Fill in what else a module knows; a class is an extension type only if its bases are."""
    for module in modules.values():  # in the order of imports
        module.numbers |= numbers_in(module.tree.body)
        for node in module.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                imported = modules[node.module]
                for alias in node.names:
                    here = alias.asname or alias.name
                    if alias.name in imported.numbers:
                        module.numbers[here] = imported.numbers[alias.name]
                    if alias.name in imported.types:
                        module.visible[here] = (imported.name, alias.name)
                    elif alias.name in imported.visible:
                        module.visible[here] = imported.visible[alias.name]
                    elif alias.name in {each.name for each in direct_in(imported.tree.body)}:
                        module.functions[here] = (imported.name, alias.name)
            elif isinstance(node, ast.ClassDef) and slots_of(node) is not None:
                bases = [ast.unparse(base) for base in node.bases]
                if all(base in module.visible or base in DROPPED_BASES for base in bases):
                    module.types[node.name] = node
                    module.visible[node.name] = (module.name, node.name)


def numbers_in(body: list[ast.stmt]) -> dict[str, bytes]:
    """The names of a module's body that are `Final` and one literal whole number."""
    return {
        node.target.id: ast.unparse(node.value).encode()
        for node in body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.value is not None
        and ast.unparse(node.annotation) == "Final"
        and re.fullmatch(r"-?[0-9]{1,9}", ast.unparse(node.value))
    }


def direct_in(body: list[ast.stmt]) -> list[ast.FunctionDef]:
    """The functions of a module's or class's body that can be called directly."""
    return [each for each in body if isinstance(each, ast.FunctionDef) and is_direct(each)]


def is_direct(node: ast.FunctionDef) -> bool:
    """Whether Cython can make a C function of it: no coroutine, no closure, plain parameters."""
    if node.decorator_list or node.name.startswith("__"):
        return False
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        return False
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.GeneratorExp, ast.Yield, ast.YieldFrom)
    return not any(isinstance(each, inner) for each in ast.walk(node) if each is not node)


# --- what Cython is told ----------------------------------------------------------------------------------------------


def type_name(annotation: ast.expr | None, module: Module) -> str | None:
    """The extension type, or exact builtin, that an annotation names, `| None` allowed; None for everything else."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.right, ast.Constant):
        inner = type_name(annotation.left, module)
        return inner if annotation.right.value is None else None
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        annotation = annotation.value
    if isinstance(annotation, ast.Name) and (annotation.id in module.visible or annotation.id in EXACT):
        return annotation.id
    return None


def is_kept(annotation: ast.expr, module: Module) -> bool:
    """Whether a local variable's annotation stands: a `float` that is not optional may be a number of C as well."""
    return type_name(annotation, module) is not None or ast.unparse(annotation) == "float"


def declaration(module: Module) -> str:
    """The `.pxd` of a module."""
    lines: list[str] = []
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef) and node.name in module.types:
            lines += [*class_declaration(node, module), ""]
        else:
            lines += [signature(each, module) for each in direct_in([node])]
    imported = [
        f"from {where} cimport {name}" + (f" as {here}" if here != name else "")
        for here, (where, name) in sorted({**module.visible, **module.functions}.items())
        if where != module.name
    ]
    return "\n".join([*imported, "", *lines, ""])


def class_declaration(cls: ast.ClassDef, module: Module) -> Iterator[str]:
    """The fields and the directly callable methods of an extension type."""
    base = [ast.unparse(each) for each in cls.bases if ast.unparse(each) in module.visible]
    yield f"cdef class {cls.name}({base[0]}):" if base else f"cdef class {cls.name}:"
    types = field_types(cls, module)
    access = "readonly" if "frozen" in (dataclass_options(cls) or ()) else "public"
    slots = slots_of(cls) or []
    for name in slots:
        kind = "object" if name == "__weakref__" else f"{access} {types.get(name, 'object')}"
        yield f"    cdef {kind} {name}"
    methods = direct_in(cls.body)
    for method in methods:
        yield "    " + signature(method, module)
    if not slots and not methods:
        yield "    pass"


def field_types(cls: ast.ClassDef, module: Module) -> dict[str, str]:
    """Types of fields: as annotated in the class or where they are set, else as the parameter they are set to."""
    types: dict[str, str] = {}
    for node in ast.walk(cls):
        if isinstance(node, ast.AnnAssign):
            target = node.target
            name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
            if found := type_name(node.annotation, module):
                types[name] = found
    for method in cls.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            parameters = {each.arg: each.annotation for each in (*method.args.args, *method.args.kwonlyargs)}
            for node in method.body:
                if (
                    isinstance(node, ast.Assign)
                    and isinstance(node.targets[0], ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and (found := type_name(parameters.get(node.value.id), module))
                ):
                    types.setdefault(node.targets[0].attr, found)
    return types


def signature(function: ast.FunctionDef, module: Module) -> str:
    """`cpdef` with the types that Cython may rely on."""
    arguments = function.args.args
    optional = len(arguments) - len(function.args.defaults)
    parameters = [
        ("self" if argument.arg == "self" else f"{type_name(argument.annotation, module) or 'object'} {argument.arg}")
        + ("=*" if index >= optional else "")
        for index, argument in enumerate(arguments)
    ]
    return f"cpdef {type_name(function.returns, module) or 'object'} {function.name}({', '.join(parameters)})"


def prepared_source(module: Module) -> str:
    """The source without what Cython should not read, and with numbers in place of their names.

    Every annotation is blanked out that does not name one of these types, and so is `slots=True`.
    """
    lines = [line.encode() for line in module.source.splitlines(keepends=True)]
    in_classes = {each for cls in ast.walk(module.tree) if isinstance(cls, ast.ClassDef) for each in cls.body}
    scopes = [module.tree.body, *(cls.body for cls in module.types.values())]
    declared = {argument for scope in scopes for each in direct_in(scope) for argument in each.args.args}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            if node in declared or type_name(node.annotation, module) is None:
                blank(lines, node.annotation, before=b":")
            elif isinstance(node.annotation, ast.Subscript):
                blank(lines, node.annotation.slice, before=b"[", and_after=1)
        elif isinstance(node, Function) and node.returns is not None:
            blank(lines, node.returns, before=b"->")
        elif isinstance(node, ast.AnnAssign) and node.value is not None and node not in in_classes:
            if isinstance(node.target, ast.Attribute) or not is_kept(node.annotation, module):
                blank(lines, node.annotation, before=b":")
            elif isinstance(node.annotation, ast.Subscript):
                blank(lines, node.annotation.slice, before=b"[", and_after=1)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in module.numbers:
            write_in(lines, node, module.numbers[node.id])
        elif isinstance(node, ast.ClassDef) and node.name in module.types:
            for base in DROPPED_BASES:
                lines[node.lineno - 1] = lines[node.lineno - 1].replace(f"({base})".encode(), b"")
            for decorator in node.decorator_list:
                at = decorator.lineno - 1
                for spelled in (b"slots=True, ", b", slots=True", b"slots=True"):
                    lines[at] = lines[at].replace(spelled, b"")
    return b"".join(lines).decode()


def blank(lines: list[bytes], node: ast.expr, before: bytes, and_after: int = 0) -> None:
    """Put spaces over an expression and the sign in front of it; line breaks stay."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    first, last = node.lineno - 1, node.end_lineno - 1
    for at in range(first, last + 1):
        line = lines[at]
        start = line.rindex(before, 0, node.col_offset) if at == first else 0
        end = node.end_col_offset + and_after if at == last else len(line.rstrip(b"\r\n"))
        lines[at] = line[:start] + b" " * (end - start) + line[end:]


def write_in(lines: list[bytes], name: ast.Name, number: bytes) -> None:
    """Put a number over a name that is no shorter; no column moves, and a name inside an f-string is left alone."""
    line, start, end = lines[name.lineno - 1], name.col_offset, name.col_offset + len(name.id)
    if line[start:end] == name.id.encode() and len(number) <= len(name.id):
        lines[name.lineno - 1] = line[:start] + number.ljust(len(name.id)) + line[end:]


# --- the build --------------------------------------------------------------------------------------------------------


def read_modules(package: Path, names: Iterable[str]) -> dict[str, Module]:
    """These modules, those that are imported before those that import them."""
    found = {}
    for name in names:
        source = (package.parent / (name.replace(".", "/") + ".py")).read_text()
        found[name] = Module(name, source, ast.parse(source))
    ordered: dict[str, Module] = {}

    def place(module: Module) -> None:
        if module.name in ordered:
            return
        for node in module.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module in found:
                place(found[node.module])
        ordered[module.name] = module

    for module in found.values():
        place(module)
    find_types(ordered)
    return ordered


def compile_package(destination: Path, names: Iterable[str] | None = None, trained: bool = False) -> list[Path]:
    """Copy the package into `destination` and compile it there, or only `names`; the extension modules built."""
    package = destination / "gateway"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "gateway", package, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.c"))
    modules = read_modules(package, compiled_modules() if names is None else names)
    work = destination / "cython"  # kept, so that only what has changed is compiled again
    for folder in [package, *(each for each in package.rglob("*") if each.is_dir())]:
        place = work / folder.relative_to(destination)
        place.mkdir(parents=True, exist_ok=True)
        write(place / "__init__.py", "")
        write(place / "__init__.pxd", "")
    for module in modules.values():
        write(work / module.file, prepared_source(module))
        write((work / module.file).with_suffix(".pxd"), declaration(module))
    if trained and is_gcc():
        shutil.rmtree(work / "build", ignore_errors=True)
        build(work, modules, WATCHING)
        place_extensions(work, modules, destination)
        # In a process of its own, as it ends with what the compiler has watched being written down.
        exercise = [sys.executable, str(ROOT / "tools" / "exercise.py"), str(destination)]
        if subprocess.run(exercise, timeout=EXERCISE_S, check=False).returncode:
            print("the request path could not be exercised, so it is compiled untrained", file=sys.stderr)
            shutil.rmtree(work / "build")
        for stale in (*work.rglob("*.o"), *work.rglob("*.so")):
            stale.unlink()
        build(work, modules, LEARNED)
    else:
        build(work, modules, {})
    return place_extensions(work, modules, destination)


def is_gcc() -> bool:
    """Whether extensions are compiled by gcc; other compilers take their training in another form."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    asked = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False)
    return "Free Software Foundation" in asked.stdout


def build(work: Path, modules: dict[str, Module], flags: dict[str, str]) -> None:
    """Compile what was prepared in `work`; `flags` go to the compiler and the linker by their usual variables."""
    names = [module.file for module in modules.values()]
    added = {name: f"{os.environ.get(name, '')} {flag}".strip() for name, flag in flags.items()}
    # In a process of its own: Cython's workers import the main module again.
    subprocess.run([sys.executable, "-c", _BUILD, *names], cwd=work, env={**os.environ, **added}, check=True)


def place_extensions(work: Path, modules: dict[str, Module], destination: Path) -> list[Path]:
    """Copy the extension modules beside their sources; where they are now."""
    built = []
    for module in modules.values():
        source = Path(module.file)
        (extension,) = (work / source.parent).glob(f"{source.stem}.*.so")  # by its tag, of this interpreter
        place = destination / extension.relative_to(work)
        shutil.copy2(extension, place)
        built.append(place)
    return built


def write(path: Path, text: str) -> None:
    """Write a file, unless it says so already: its time of change decides whether it is compiled again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


_BUILD = """
import os, sys
from Cython.Build import cythonize
from setuptools import Extension, setup

files = sys.argv[1:]
extensions = [
    Extension(file[:-3].replace("/", "."), [file], extra_compile_args=["-O2", "-g0", "-w"]) for file in files
]
directives = {"language_level": 3, "annotation_typing": True, "binding": True, "embedsignature": False}
setup(
    name="gateway",
    script_args=["--quiet", "build_ext", "--inplace", f"--parallel={os.cpu_count()}"],
    ext_modules=cythonize(extensions, compiler_directives=directives, nthreads=os.cpu_count() or 1, quiet=True),
)
"""


def main() -> None:
    """The command line."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--trained"]
    if len(arguments) != 1:
        sys.exit("usage: python tools/compile.py [--trained] DEST")
    destination = Path(arguments[0]).resolve()
    destination.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    built = compile_package(destination, trained="--trained" in sys.argv)
    print(f"{len(built)} modules compiled in {arguments[0]}")


if __name__ == "__main__":
    main()
