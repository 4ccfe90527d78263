"""One problem of the YAML file: where, what, and what to do; rendered with its source line and a caret."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_USERINFO = re.compile(r"(?<=://)[^\s'\"]*@")  # greedy: a password may hold a slash


def without_userinfo(text: str) -> str:
    """`text` with the user and password of every URL in it replaced by `***`."""
    return _USERINFO.sub("***@", text)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one place of the file. Lines and columns count from 1; 0 means the file as a whole."""

    file: str
    line: int
    column: int
    path: str  # `routes[0].upstream`; "" for YAML that cannot be read
    message: str
    hint: str = ""
    source_line: str = ""  # secrets already masked
    width: int = 1  # characters of the source line that the caret underlines
    severity: str = "error"  # or "warning"
    key: tuple[str | int, ...] = field(default=(), compare=False)  # `path` in parts

    def render(self) -> str:
        """`file:line:column: path: message`, the source line with a caret, the hint; no trailing newline."""
        place = ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])
        parts = [place, *(["warning"] if self.severity == "warning" else []), *([self.path] if self.path else [])]
        lines = [": ".join([*parts, self.message])]
        if self.source_line.strip():
            gutter = f"{self.line:>5} | "
            # Tabs stay tabs, so that the caret stands right whatever their width.
            blank = re.sub(r"[^\t]", " ", self.source_line[: self.column - 1])
            lines += [gutter + self.source_line, " " * 5 + " | " + blank + "^" * max(self.width, 1)]
        if self.hint:
            lines.append(f"      = {self.hint}")
        return "\n".join(lines)

    @property
    def brief(self) -> str:
        """The same in one line, for a log."""
        place = ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])
        return ": ".join(part for part in (place, self.path, self.message) if part) + (
            f" ({self.hint})" if self.hint else ""
        )

    def as_json(self) -> dict[str, str | int]:
        """The same for machines: `gateway check --format json`."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
        }


class ConfigError(Exception):
    """The file cannot be used; holds every problem that was found, sorted by line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """`problems` is not empty."""
        super().__init__("\n".join(problem.render() for problem in problems))
        self.problems = problems


def dotted(path: tuple[str | int, ...]) -> str:
    """`("routes", 0, "auth")` as `routes[0].auth`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
