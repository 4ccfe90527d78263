"""The gateway with a counter inside: bytecode instructions and calls between two SIGUSR1, written to a file.

``python -m tests.benchmarks.counted FILE serve --config …``. Counts of Python code do not depend on the machine or on
what else it does, so a change of one percent in them is a change of the code. C code (parsing, signatures, the event
loop) is seen only as a call.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

_PACKAGE = "gateway"


class Counter:
    """Counts while it is on; a signal turns it on, the next one turns it off and writes the counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._is_on = False
        self._calls = 0
        self._instructions: dict[str, int] = {}

    def toggle(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal's handler."""
        if not self._is_on:
            self._is_on = True
            sys.setprofile(self._on_call)
            sys.settrace(self._on_step)
            return
        sys.settrace(None)
        sys.setprofile(None)
        self._is_on = False
        finished = self._file.with_suffix(".part")
        finished.write_text(json.dumps({"calls": self._calls, "instructions": self._instructions}))
        finished.replace(self._file)
        self._calls = 0
        self._instructions = {}

    # The interpreter's own signatures leave the argument untyped.
    def _on_call(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in ("call", "c_call"):
            self._calls += 1

    def _on_step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            module = _module_of(frame)
            self._instructions[module] = self._instructions.get(module, 0) + 1
        else:
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return self._on_step


def _module_of(frame: FrameType) -> str:
    """The module's dotted name for our own code, the top-level package for everybody else's."""
    name = str(frame.f_globals.get("__name__", "?"))
    return name if name.split(".")[0] == _PACKAGE else name.split(".")[0]


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, Counter(Path(sys.argv[1])).toggle)
    sys.argv = [_PACKAGE, *sys.argv[2:]]
    runpy.run_module(_PACKAGE, run_name="__main__")
