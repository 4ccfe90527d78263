"""What `gateway explain` is asked and what it answers: a request that nobody sends, and the steps it would go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Probe:
    """The request that is asked about, as the pipeline would see it."""

    method: str
    host: bytes
    raw_path: bytes
    query_string: bytes
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)

    @classmethod
    def of(cls, method: str, url: str, header_lines: Sequence[str] = (), token: str | None = None) -> Probe:
        """From what is typed: a URL or a path, `Name: value` lines, and a token for `Authorization`; ValueError."""
        parts = urlsplit(url)
        if not parts.path.startswith("/") and not (parts.netloc and not parts.path):
            raise ValueError("write a path that begins with a slash, or a whole URL")
        headers: list[tuple[bytes, bytes]] = []
        for line in header_lines:
            name, colon, value = line.partition(":")
            if not colon or not name.strip():
                raise ValueError("write headers as 'Name: value'")
            headers.append((name.strip().lower().encode("latin-1"), value.strip().encode("latin-1", "replace")))
        if token:
            if not token.isascii():
                raise ValueError("the token holds characters outside ASCII, so it is no token")
            headers.append((b"authorization", b"Bearer " + token.encode()))
        hosts = [value for name, value in headers if name == b"host"] or [parts.netloc.encode() or b"localhost"]
        # The path stays as typed: decoding or normalising it here would explain another request.
        path = parts.path or "/"
        return cls(method.upper(), hosts[0], path.encode(), parts.query.encode(), tuple(headers))


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was decided and what that means for the caller or the operator."""

    name: str
    outcome: Literal["ok", "refused", "unknown"]
    says: tuple[str, ...]  # sentences
    remedy: str = ""


@dataclass(slots=True)
class Explanation:
    """The steps as far as the request would get; the last one decides."""

    steps: list[Step] = field(default_factory=list)
    error: GatewayError | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the gateway would answer itself instead of forwarding."""
        return self.error is not None

    def add(self, name: str, *says: str, outcome: Literal["ok", "refused", "unknown"] = "ok", remedy: str = "") -> None:
        """One more step."""
        self.steps.append(Step(name, outcome, says, remedy))

    def refuse(self, name: str, error: GatewayError, *says: str, remedy: str = "") -> Explanation:
        """The last step: the gateway answers with `error`."""
        self.error = error
        self.add(
            name, f"{error.status} {error.code}: {error.detail or error.title}", *says, outcome="refused", remedy=remedy
        )
        return self

    def render(self) -> str:
        """For a terminal; no trailing newline."""
        marks = {"ok": "ok", "refused": "NO", "unknown": "?"}
        lines: list[str] = []
        for step in self.steps:
            lines.append(f"{marks[step.outcome]:<3} {step.name:<11} {step.says[0]}")
            lines += [f"{'':<15} {sentence}" for sentence in step.says[1:]]
            if step.remedy:
                lines.append(f"{'':<15} what to do: {step.remedy}")
        end = "forwarded" if self.error is None else f"refused with {self.error.status} {self.error.code}"
        if self.error is None and any(step.outcome == "unknown" for step in self.steps):
            end += ", if what could not be checked here holds"
        return "\n".join([*lines, "", f"The request would be {end}."])
