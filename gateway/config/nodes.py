"""The tree that PyYAML composes: nodes that know their place, and whose types nobody has guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

# libyaml where the wheel brings it: thousands of routes are read about ten times as fast.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

PLAIN, QUOTED = "plain", "quoted"
"""Our tags: everything else was written as a tag by somebody."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where something stands; counted from 0, the end is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


def span_of(node: yaml.Node) -> Span:
    """Where a node stands."""
    start, end = node.start_mark, node.end_mark
    return Span(start.line, start.column, end.line, end.column)


def is_file_reference(node: yaml.Node) -> bool:
    """Whether a node is written `{file: path}`."""
    return isinstance(node, yaml.MappingNode) and [
        (key.value, type(value)) for key, value in node.value if isinstance(key, yaml.ScalarNode)
    ] == [("file", yaml.ScalarNode)]


class _TreeLoader(_Loader):  # type: ignore[misc]  # one of two classes of PyYAML
    """Composes nodes without guessing types: a scalar's tag only says whether it was plain or quoted."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of an untagged node."""
        return PLAIN if kind is yaml.ScalarNode and implicit[0] else QUOTED


def compose(text: str) -> yaml.Node | None:
    """The root of the tree; None if there is nothing in `text`. Raises yaml.YAMLError."""
    loader = None
    try:
        loader = _TreeLoader(text)
        root: yaml.Node | None = loader.get_single_node()
    except RecursionError as exc:
        raise yaml.YAMLError("nested too deeply") from exc
    finally:
        if loader is not None:
            loader.dispose()
    return root


def where_it_broke(exc: yaml.YAMLError, text: str) -> tuple[Span, str, str]:
    """For text that could not be composed: the place, what is wrong, and a remedy or an empty string."""
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
    lines = text.split("\n")
    source = lines[line] if line < len(lines) else ""
    if "\t" in source:
        hint = "indent with spaces: YAML allows no tabs there"
    elif "${" in source:
        hint = "inside [ ] and { }, put ${…} in quotes"
    return Span(line, column, line, column + 1), message, hint
