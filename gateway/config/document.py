"""YAML text → plain values that know where they stand.

PyYAML composes the node tree, which carries line and column; the values are built here, because PyYAML's own
constructor keeps the last of two equal keys silently and reads `1:30` as 90. What this reader decides:

- A plain scalar is `null` (also empty or `~`), `true`/`false`, a decimal number, or text. What YAML 1.1 and 1.2 read
  differently (`yes`, `on`, `0123`, `0x1f`, `1_000`, `1:30`, `.inf`) is a problem: write it unmistakably, or in quotes.
- `${NAME}` and `${NAME:-default}` inside a scalar value are replaced from the environment; an empty variable counts as
  unset for the default, as in a shell. What comes out is text, which the models turn into numbers. `$${` gives `${`.
- Equal keys, tags and keys that are not scalars are problems. Anchors, aliases and merge keys (`<<`) work; what they
  unfold to is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from gateway.config.problem import Problem, dotted, without_userinfo

Path = tuple[str | int, ...]

# libyaml where the wheel brings it: thousands of routes are read about ten times as fast.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NODES = 250_000  # built values; beyond: aliases that unfold without end
_DEPTH = 100
_PLAIN, _QUOTED = "plain", "quoted"  # our tags: everything else was written as a tag by somebody

_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_TRAPS = (
    (re.compile(r"(?i:y|yes|on)"), "write true, or put it in quotes if text is meant: YAML 1.1 reads it as true"),
    (re.compile(r"(?i:n|no|off)"), "write false, or put it in quotes if text is meant: YAML 1.1 reads it as false"),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"),
        "put it in quotes, or write a duration with its unit: YAML 1.1 reads it as a number to base 60",
    ),
    (re.compile(r"[-+]?0[0-9_]+"), "drop the leading zero, or put it in quotes: YAML 1.1 reads it as octal"),
    (re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+"), "write a decimal number, or put it in quotes"),
    (re.compile(r"[-+]?[0-9]+_[0-9_]*(?:\.[0-9_]*)?"), "leave out the underscores, or put it in quotes"),
    (re.compile(r"[-+]?\.(?i:inf|nan)"), "write a finite number, or put it in quotes"),
)
_TRAP_STARTS = frozenset("0123456789+-.yYnNoO")  # what any of them begins with: most scalars need no closer look
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")
_SECRET_NAME = re.compile(r"(?i)secret|passw|passphrase|private|^store$|api_?key")
_SECRET_ASSIGNMENT = re.compile(
    r"""(?i)(?:[\w-]*(?:secret|passw|passphrase|private|api_?key)[\w-]*|\bstore)["']?\s*:"""
)


def is_secret_name(key: str | int) -> bool:
    """Whether a key by this name, perhaps misspelt, is likely to hold something that must not be shown."""
    return isinstance(key, str) and _SECRET_NAME.search(key) is not None


class _TreeLoader(_Loader):  # type: ignore[misc]  # one of two classes of PyYAML
    """Composes nodes without guessing types: a scalar's tag only says whether it was plain or quoted."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of an untagged node."""
        return _PLAIN if kind is yaml.ScalarNode and implicit[0] else _QUOTED


def _is_file_reference(node: yaml.Node) -> bool:
    """Whether a node is written `{file: path}`."""
    return isinstance(node, yaml.MappingNode) and [
        (key.value, type(value)) for key, value in node.value if isinstance(key, yaml.ScalarNode)
    ] == [("file", yaml.ScalarNode)]


@dataclass(frozen=True, slots=True)
class Span:
    """Where something stands; counted from 0, the end is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


def _span(node: yaml.Node) -> Span:
    start, end = node.start_mark, node.end_mark
    return Span(start.line, start.column, end.line, end.column)


class Document:
    """The file's values (`tree`), the place of each, and the problems of the YAML itself."""

    def __init__(self, file: str, text: str, environ: Mapping[str, str]) -> None:
        """Reads `text`; never raises. `file` is how problems name it; `tree` is None if nothing could be read."""
        self.file = file
        self.tree: Any = None
        self.problems: list[Problem] = []
        self.faulty: set[Path] = set()  # already reported: what follows from them need not be
        self.literal: set[Path] = set()  # scalars written in the file itself, without a variable
        self._lines = text.split("\n")
        self._environ = environ
        self._keys: dict[Path, Span] = {}
        self._values: dict[Path, Span] = {}
        self._flow: set[Path] = set()
        self._secrets: list[Span] = []
        self._composed = False
        self._built = 0
        self._open: list[int] = []  # ids of the nodes being built, to notice an alias inside itself
        self._read(text)

    # --- problems ---------------------------------------------------------------------------------------------------

    def problem(
        self, path: Path, message: str, hint: str = "", *, on: str = "value", severity: str = "error"
    ) -> Problem:
        """A problem at `path`, or at the nearest place above it that stands in the file; `on` is "value" or "key"."""
        known = path
        while known and known not in self._values:
            known = known[:-1]
        span = self._place(known, on)
        return self._problem(span, dotted(path), message, hint, severity, path)

    def stands(self, path: Path) -> bool:
        """Whether the file has something at `path`."""
        return path in self._values

    def line_of(self, path: Path) -> int:
        """The line of `path`, counted from 1; 0 if it is not in the file."""
        span = self._keys.get(path) or self._values.get(path)
        return span.line + 1 if span else 0

    def _place(self, path: Path, on: str) -> Span:
        value, key = self._values.get(path), self._keys.get(path)
        if value is None:
            return Span(0, 0, 0, 0)
        is_block = value.end_line != value.line and path not in self._flow
        is_empty = (value.line, value.column) == (value.end_line, value.end_column)
        return key if key is not None and (on == "key" or is_block or is_empty) else value

    def _problem(self, span: Span, path: str, message: str, hint: str, severity: str, key: Path) -> Problem:
        line, column = self._masked(span.line, span.column)
        width = span.end_column - span.column if span.end_line == span.line else len(line.rstrip()) - column
        return Problem(
            file=self.file,
            line=span.line + 1,
            column=span.column + 1 if column == span.column else column + 1,
            path=path,
            message=without_userinfo(message),
            hint=without_userinfo(hint),
            source_line=line,
            width=max(1, min(width, len(line.rstrip()) - column)),
            severity=severity,
            key=key,
        )

    def _masked(self, number: int, column: int) -> tuple[str, int]:
        """The source line without secrets, and where `column` went by that."""
        line = self._lines[number] if number < len(self._lines) else ""
        spans = [
            (s.column if s.line == number else 0, s.end_column if s.end_line == number else len(line))
            for s in self._secrets
            if s.line <= number <= s.end_line
        ]
        if not self._composed:
            spans += self._suspects(number)
        spans += [match.span() for match in re.finditer(r"(?<=://)[^\s'\"]*(?=@)", line)]
        for start, end in sorted(spans, reverse=True):
            start = max(start, len(line[:end]) - len(line[:end].lstrip())) if start == 0 else start
            if end <= start:
                continue
            line = f"{line[:start]}***{line[end:]}"
            column = column if column <= start else start if column < end else column - (end - start) + 3
        return "".join(char if char.isprintable() or char == "\t" else "·" for char in line), column

    def _suspects(self, number: int) -> Iterator[tuple[int, int]]:
        """What may be a secret in a line of a file that could not be parsed."""
        line = self._lines[number] if number < len(self._lines) else ""
        match = _SECRET_ASSIGNMENT.search(line)
        if match is not None:
            yield match.end(), len(line)
            return
        indent = len(line) - len(line.lstrip())
        for above in reversed(self._lines[max(0, number - 200) : number]):
            if above.strip() and len(above) - len(above.lstrip()) < indent:
                if _SECRET_ASSIGNMENT.search(above):
                    yield indent, len(line)
                return

    def _report(self, path: Path, span: Span, message: str, hint: str = "") -> None:
        self.faulty.add(path)
        self.problems.append(self._problem(span, dotted(path), message, hint, "error", path))

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self, text: str) -> None:
        loader = None
        try:
            loader = _TreeLoader(text)
            node = loader.get_single_node()
        except yaml.YAMLError as exc:
            self._unreadable(exc, text)
            return
        except RecursionError:
            self._unreadable(yaml.YAMLError("nested too deeply"), text)
            return
        finally:
            if loader is not None:
                loader.dispose()
        self._composed = True
        if node is None:
            self._report((), Span(0, 0, 0, 0), "the file is empty", "config/examples shows how to begin")
            return
        self._find_secrets(node)
        self._values[()] = _span(node)
        self.tree = self._build(node, ())

    def _unreadable(self, exc: yaml.YAMLError, text: str) -> None:
        mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        if isinstance(exc, yaml.reader.ReaderError):
            before = text[: exc.position] if isinstance(exc.position, int) else ""
            line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
            message = "a character that YAML does not allow"
        else:
            message = str(getattr(exc, "problem", None) or exc)
        context = getattr(exc, "context", None)
        hint = f"{context}" if context and getattr(exc, "problem", None) else ""
        source = self._lines[line] if line < len(self._lines) else ""
        if "\t" in source:
            hint = "indent with spaces: YAML allows no tabs there"
        elif "${" in source:
            hint = "inside [ ] and { }, put ${…} in quotes"
        self._report((), Span(line, column, line, column + 1), f"not YAML: {message}", hint)

    def _find_secrets(self, root: yaml.Node) -> None:
        """Before anything is reported: which parts of the text must never be shown."""
        seen: set[int] = set()
        pending = [root]
        while pending:
            node = pending.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                pending += node.value
            elif isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    pending += (key, value)
                    if isinstance(key, yaml.ScalarNode) and is_secret_name(key.value):
                        self._hide(value)

    def _hide(self, node: yaml.Node) -> None:
        """A secret written in the file; a variable's or a file's name is not one."""
        if isinstance(node, yaml.ScalarNode):
            if not re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|", node.value):
                self._secrets.append(_span(node))
        elif not _is_file_reference(node):
            self._secrets.append(_span(node))

    # --- values -----------------------------------------------------------------------------------------------------

    def _build(self, node: yaml.Node, path: Path) -> Any:
        self._built += 1
        if self._built > _NODES:
            if self._built == _NODES + 1:
                self._report((), _span(node), f"the file unfolds to more than {_NODES:,} values", "use fewer aliases")
            return None
        if id(node) in self._open or len(self._open) > _DEPTH:
            self._report(path, _span(node), "nested too deeply, or an alias that holds itself")
            return None
        self._open.append(id(node))
        try:
            return self._build_by_kind(node, path)
        finally:
            self._open.pop()

    def _build_by_kind(self, node: yaml.Node, path: Path) -> Any:
        if node.tag not in (_PLAIN, _QUOTED):
            self._report(path, _span(node), f"a tag ({node.tag}) is not allowed", "leave it out; use quotes for text")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if getattr(node, "flow_style", False):
            self._flow.add(path)
        if isinstance(node, yaml.SequenceNode):
            return [self._child(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _child(self, node: yaml.Node, path: Path) -> Any:
        self._values[path] = _span(node)
        return self._build(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        built: dict[str, Any] = {}
        pairs = [(key, value) for key, value in node.value if self._is_key(key, path)]
        # Merged keys first, so that the mapping's own ones, and their places, win.
        for key, value in pairs:
            if key.value == "<<" and key.tag == _PLAIN:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    built = {**self._merged(merged, path), **built}
        own: dict[str, int] = {}
        for key, value in pairs:
            if key.value == "<<" and key.tag == _PLAIN:
                continue
            here, span = (*path, key.value), _span(key)
            if key.value in own:
                first = f"it stands in line {own[key.value]} too; keep one"
                self._report(here, span, f"`{key.value}` appears twice", first)
                continue
            own[key.value] = span.line + 1
            self._keys[here] = span
            self._flag_trap(key, here)
            built[key.value] = self._child(value, here)
        return built

    def _is_key(self, node: yaml.Node, path: Path) -> bool:
        if isinstance(node, yaml.ScalarNode) and node.tag in (_PLAIN, _QUOTED):
            return True
        self._report(path, _span(node), "a key must be text")
        return False

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        if isinstance(node, yaml.MappingNode):
            built = self._build(node, path)
            return built if isinstance(built, dict) else {}
        self._report(path, _span(node), "`<<` merges mappings only")
        return {}

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        if "${" in text:
            return self._substituted(text, path, _span(node))
        self.literal.add(path)
        if node.tag == _QUOTED:
            return text
        if self._flag_trap(node, path):
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text) and len(text) < 20:
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return text

    def _flag_trap(self, node: yaml.ScalarNode, path: Path) -> bool:
        if node.tag != _PLAIN or node.value[:1] not in _TRAP_STARTS:
            return False
        for pattern, remedy in _TRAPS:
            if pattern.fullmatch(node.value):
                self._report(path, _span(node), f"`{node.value}` can be read in two ways", remedy)
                return True
        return False

    def _substituted(self, text: str, path: Path, span: Span) -> str:
        def replace(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            if match[0] == "$${":
                return "${"
            if name is None:
                self._report(
                    path,
                    span,
                    "`${` does not begin a variable",
                    "write ${NAME}, ${NAME:-default}, or $${ for ${ itself",
                )
                return ""
            value = self._environ.get(name)
            if default is not None:
                return value or default
            if value is None:
                self._report(path, span, f"the environment has no {name}", f"set it, or give a default: ${{{name}:-…}}")
            return value or ""

        return _VARIABLE.sub(replace, text)
