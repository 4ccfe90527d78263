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
from collections.abc import Mapping
from typing import Any

import yaml

from gateway.config.nodes import PLAIN, QUOTED, Span, compose, span_of, where_it_broke
from gateway.config.problem import Problem, dotted, without_userinfo
from gateway.config.redaction import Redaction
from gateway.config.scalars import plain_value, trap

Path = tuple[str | int, ...]

_NODES = 250_000  # built values; beyond: aliases that unfold without end
_DEPTH = 100
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


class Document:
    """The file's values (`tree`), the place of each, and the problems of the YAML itself."""

    def __init__(self, file: str, text: str, environ: Mapping[str, str]) -> None:
        """Reads `text`; never raises. `file` is how problems name it; `tree` is None if nothing could be read."""
        self.file = file
        self.tree: Any = None
        self.problems: list[Problem] = []
        self.faulty: set[Path] = set()  # already reported: what follows from them need not be
        self.literal: set[Path] = set()  # scalars written in the file itself, without a variable
        self._redaction = Redaction(text.split("\n"))
        self._environ = environ
        self._keys: dict[Path, Span] = {}
        self._values: dict[Path, Span] = {}
        self._flow: set[Path] = set()
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
        line, column = self._redaction.line(span.line, span.column)
        end = self._redaction.line(span.line, span.end_column)[1] if span.end_line == span.line else len(line)
        return Problem(
            file=self.file,
            line=span.line + 1,
            column=span.column + 1 if column == span.column else column + 1,
            path=path,
            message=without_userinfo(message),
            hint=without_userinfo(hint),
            source_line=line,
            width=max(1, min(end, len(line.rstrip())) - column),
            severity=severity,
            key=key,
        )

    def _report(self, path: Path, span: Span, message: str, hint: str = "") -> None:
        self.faulty.add(path)
        self.problems.append(self._problem(span, dotted(path), message, hint, "error", path))

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self, text: str) -> None:
        try:
            root = compose(text)
        except yaml.YAMLError as exc:
            span, message, hint = where_it_broke(exc, text)
            self._report((), span, f"not YAML: {message}", hint)
            return
        if root is None:
            self._report((), Span(0, 0, 0, 0), "the file is empty", "config/examples shows how to begin")
            return
        # Before anything else is reported.
        self._redaction.find_secrets(root)
        self._values[()] = span_of(root)
        self.tree = self._build(root, ())

    # --- values -----------------------------------------------------------------------------------------------------

    def _build(self, node: yaml.Node, path: Path) -> Any:
        self._built += 1
        if self._built > _NODES:
            if self._built == _NODES + 1:
                self._report((), span_of(node), f"the file unfolds to more than {_NODES:,} values", "use fewer aliases")
            return None
        if id(node) in self._open or len(self._open) > _DEPTH:
            self._report(path, span_of(node), "nested too deeply, or an alias that holds itself")
            return None
        self._open.append(id(node))
        try:
            return self._build_by_kind(node, path)
        finally:
            self._open.pop()

    def _build_by_kind(self, node: yaml.Node, path: Path) -> Any:
        if node.tag not in (PLAIN, QUOTED):
            self._report(path, span_of(node), f"a tag ({node.tag}) is not allowed", "leave it out; use quotes for text")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if getattr(node, "flow_style", False):
            self._flow.add(path)
        if isinstance(node, yaml.SequenceNode):
            return [self._child(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _child(self, node: yaml.Node, path: Path) -> Any:
        self._values[path] = span_of(node)
        return self._build(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        built: dict[str, Any] = {}
        pairs = [(key, value) for key, value in node.value if self._is_key(key, path)]
        # Merged keys first, so that the mapping's own ones, and their places, win.
        for key, value in pairs:
            if key.value == "<<" and key.tag == PLAIN:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    built = {**self._merged(merged, path), **built}
        own: dict[str, int] = {}
        for key, value in pairs:
            if key.value == "<<" and key.tag == PLAIN:
                continue
            here, span = (*path, key.value), span_of(key)
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
        if isinstance(node, yaml.ScalarNode) and node.tag in (PLAIN, QUOTED):
            return True
        self._report(path, span_of(node), "a key must be text")
        return False

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        if isinstance(node, yaml.MappingNode):
            built = self._build(node, path)
            return built if isinstance(built, dict) else {}
        self._report(path, span_of(node), "`<<` merges mappings only")
        return {}

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        if "${" in text:
            return self._substituted(text, path, span_of(node))
        self.literal.add(path)
        if node.tag == QUOTED:
            return text
        if self._flag_trap(node, path):
            return text
        return plain_value(text)

    def _flag_trap(self, node: yaml.ScalarNode, path: Path) -> bool:
        remedy = trap(node.value) if node.tag == PLAIN else None
        if remedy is not None:
            self._report(path, span_of(node), f"`{node.value}` can be read in two ways", remedy)
        return remedy is not None

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
