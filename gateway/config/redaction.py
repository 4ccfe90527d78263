"""What of the file's text must never be shown: secrets, also where the key is misspelt or the file is not YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from gateway.config.nodes import Span, is_file_reference, span_of

# Also misspelt ones: what is likely to hold a secret is not shown.
_SECRET_NAME = re.compile(r"(?i)secret|passw|passphrase|private|^store$|api_?key")
_SECRET_ASSIGNMENT = re.compile(
    r"""(?i)(?:[\w-]*(?:secret|passw|passphrase|private|api_?key)[\w-]*|\bstore)["']?\s*:"""
)


class Redaction:
    """The lines of a text as they may be shown.

    Until `find_secrets` has seen the tree, a line is judged by how it looks: that is all there is if the file is not
    YAML.
    """

    def __init__(self, lines: list[str]) -> None:
        """`lines`: the text, without line endings."""
        self._lines = lines
        self._secrets: list[Span] = []
        self._knows_tree = False

    def find_secrets(self, root: yaml.Node) -> None:
        """Remembers which parts of the text hold a secret."""
        self._knows_tree = True
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
                    if isinstance(key, yaml.ScalarNode) and _SECRET_NAME.search(key.value):
                        self._hide(value)

    def _hide(self, node: yaml.Node) -> None:
        """A secret written in the file; a variable's or a file's name is not one."""
        if isinstance(node, yaml.ScalarNode):
            if not re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|", node.value):
                self._secrets.append(span_of(node))
        elif not is_file_reference(node):
            self._secrets.append(span_of(node))

    def line(self, number: int, column: int) -> tuple[str, int]:
        """Line `number`, counted from 0, with `***` for secrets and `·` for the unprintable; where `column` went."""
        line = self._lines[number] if number < len(self._lines) else ""
        spans = [
            (s.column if s.line == number else 0, s.end_column if s.end_line == number else len(line))
            for s in self._secrets
            if s.line <= number <= s.end_line
        ]
        if not self._knows_tree:
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
