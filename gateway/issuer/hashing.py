"""Argon2id in a process of its own: one question per line of standard input, one answer per line of standard output.

    {"hash": PASSWORD, "time_cost": …, "memory_cost": …, "parallelism": …}   the PHC string
    {"verify": PASSWORD, "hash_of": PHC}                                     true or false

Run as a file, with nothing of ours to import, it is up in a twentieth of a second. It ends with its standard input,
so never later than the gateway that asks, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

_NICE = 15  # beside a gateway that never rests it still gets a thirtieth of a core


def answer(question: dict[str, Any]) -> str | bool:
    """The answer to one question."""
    if "verify" in question:
        try:
            return PasswordHasher().verify(question["hash_of"], question["verify"])
        except (VerificationError, InvalidHashError):
            return False
    hasher = PasswordHasher(question["time_cost"], question["memory_cost"], question["parallelism"], type=Type.ID)
    return hasher.hash(question["hash"])


def main() -> None:
    """Answers until there are no more questions."""
    # Whoever ends the gateway, by Ctrl-C or as a whole group, lets it finish the log-ins that it has begun.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            sys.stdout.buffer.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
