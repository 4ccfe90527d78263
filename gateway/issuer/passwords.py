"""Passwords: which may be used, and argon2id in a few processes that never take the processor from the event loop.

A hash takes a good part of a second and tens of megabytes, so at most `threads` run at once and at most `waiting` wait;
beyond that the answer is 503 with `Retry-After`. Each thread waits for a process of its own, which has a low priority:
proxied requests come first.
"""

from __future__ import annotations

import asyncio
import threading
import unicodedata
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib.resources import files
from typing import Any

from argon2 import Parameters, PasswordHasher, Type, extract_parameters
from argon2.exceptions import InvalidHashError
from argon2.low_level import ARGON2_VERSION

from gateway.config.issuance import Passwords
from gateway.errors import Overloaded
from gateway.issuer.hashing import answer
from gateway.issuer.hashing_process import HashingProcess
from gateway.issuer.refusals import WeakPassword

SHORTEST, LONGEST = 8, 256  # characters after normalisation (NIST SP 800-63B §3.1.1.2)
_CHEAP_KIB = 4096  # memory times passes: below, a hash takes a few milliseconds and is not worth a process


def prepare(password: str) -> str:
    """The password as hashed: NFKC, so that two keyboards give the same (RFC 8265 §4.2, with NFKC for NFC)."""
    return unicodedata.normalize("NFKC", password)


def check_strength(password: str, names: Iterable[str] = ()) -> str:
    """The prepared password if it may be used; WeakPassword says why not. `names` are those of the account."""
    prepared = prepare(password)
    if len(prepared) < SHORTEST:
        raise WeakPassword(f"It has fewer than {SHORTEST} characters.")
    if len(prepared) > LONGEST:
        raise WeakPassword(f"It has more than {LONGEST} characters.")
    folded = prepared.casefold()
    if folded in _commonest() or len(set(folded)) == 1:
        raise WeakPassword("It is one of the commonest passwords.")
    if folded in {name.casefold() for name in names if name}:
        raise WeakPassword("It is the name of the account.")
    return prepared


@cache
def _commonest() -> frozenset[str]:
    text = files("gateway.issuer").joinpath("commonest_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line)


class HashingPool:
    """Computes argon2id, so many at once; owns the threads that wait, the processes that work, and the count."""

    def __init__(self, config: Passwords) -> None:
        self._hasher = PasswordHasher(
            time_cost=config.time_cost,
            memory_cost=max(config.memory // 1024, 8 * config.parallelism),
            parallelism=config.parallelism,
            type=Type.ID,
        )
        self._threads = ThreadPoolExecutor(config.threads, "gateway-argon2")
        self._processes = [HashingProcess() for _ in range(config.threads)]
        self._idle = list(self._processes)
        self._room = config.threads + config.waiting
        self._taken = 0
        self._lock = threading.Lock()
        self.hashes = 0
        self.refused = 0

    @property
    def waiting(self) -> int:
        """Hashes that run or wait."""
        return self._taken

    async def hash(self, prepared: str) -> str:
        """The PHC string of a prepared password. Raises Overloaded."""
        return str(await self._run({"hash": prepared, **self._cost}, self._hasher))

    async def verify(self, password_hash: str, prepared: str) -> bool:
        """Whether the password is the hashed one; as slow as the cost in the hash says. Raises Overloaded."""
        try:
            cost = extract_parameters(password_hash)
        except InvalidHashError:
            return False
        return await self._run({"verify": prepared, "hash_of": password_hash}, cost) is True

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the configured cost is another than this hash's."""
        return self._hasher.check_needs_rehash(password_hash)

    @property
    def cost(self) -> str:
        """The configured cost as a PHC string begins: `$argon2id$v=19$m=65536,t=3,p=1`."""
        hasher = self._hasher
        settings = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
        return f"$argon2id$v={ARGON2_VERSION}${settings}"

    @property
    def _cost(self) -> dict[str, int]:
        hasher = self._hasher
        return {
            "time_cost": hasher.time_cost,
            "memory_cost": hasher.memory_cost,
            "parallelism": hasher.parallelism,
        }

    def require_room(self) -> None:
        """Raise Overloaded if another hash could not even wait now; asked first, a refusal costs next to nothing."""
        if self._taken >= self._room:
            self.refused += 1
            raise Overloaded("Too many log-ins at the moment; try again later.")

    async def _run(self, question: dict[str, Any], cost: Parameters | PasswordHasher) -> str | bool:
        with self._lock:
            self.require_room()
            self._taken += 1
            self.hashes += 1
        is_cheap = cost.memory_cost * cost.time_cost < _CHEAP_KIB
        future = self._threads.submit(answer if is_cheap else self._ask, question)
        # Counted until the thread is free again, not until the caller goes away: a hash cannot be cancelled.
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _ask(self, question: dict[str, Any]) -> str | bool:
        process = self._idle.pop()  # as many as there are threads
        try:
            answered: str | bool = process.ask(question)
            return answered
        finally:
            self._idle.append(process)

    def _leave(self, _: Future[str | bool]) -> None:
        with self._lock:
            self._taken -= 1

    def close(self) -> None:
        """End the processes, also in the middle of a hash, and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.close()
