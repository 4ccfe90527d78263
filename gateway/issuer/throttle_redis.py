"""Failures counted in Redis, where every gateway sees them at once whatever its issuer's store is.

For each key a number that is forgotten after a while without failures, and beside it, while it is blocked, a key that
ends with the block. Redis keeps the time, so clocks that differ do not matter. A script changes both in one step. All
keys carry one hash tag, so that in a Cluster one master has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from gateway.config.issuance import Throttle as Config
from gateway.issuer.throttle import CountsUnavailable
from gateway.redis.link import LinkLost, Reply, ReplyError
from gateway.redis.masters import MasterLinks

PREFIX: Final = "gateway:throttle:"

# KEYS: for each what counts, its number and its block. ARGV: milliseconds until it is forgotten, the longest block, and
# for each the failures that are free. Gives the milliseconds to wait; 0: nobody has to, and the attempt was counted.
_ENTER: Final = """
local wait = 0
for i = 2, #KEYS, 2 do wait = math.max(wait, redis.call('PTTL', KEYS[i])) end
if wait > 0 then return wait end
for i = 1, #KEYS, 2 do
  local failures = redis.call('INCR', KEYS[i])
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
  local over = failures - tonumber(ARGV[2 + (i + 1) / 2])
  if over > 0 then
    local block = math.min(1000 * 2 ^ math.min(over - 1, 30), tonumber(ARGV[2]))
    redis.call('SET', KEYS[i + 1], 1, 'PX', string.format('%.0f', block))
  end
end
return 0
"""

# ARGV: for each 1 if nothing of it shall be left, 0 if one failure less.
_TAKE_BACK: Final = """
for i = 1, #KEYS, 2 do
  redis.call('DEL', KEYS[i + 1])
  if ARGV[(i + 1) / 2] == '1' then
    redis.call('DEL', KEYS[i])
  elseif tonumber(redis.call('GET', KEYS[i]) or 0) > 0 then
    redis.call('DECR', KEYS[i])
  end
end
return 0
"""
_AGAIN_S: Final = 1.0
"""How long Redis is not asked after it did not answer: nobody is to wait for its deadline again and again."""


class RedisCounts:
    """Counts below `gateway:throttle:`; owns nothing but the links, and keeps no state of an attempt."""

    def __init__(
        self, links: MasterLinks, issuer: str, config: Config, monotonic: Callable[[], float] = monotonic
    ) -> None:
        """`issuer` is the built-in issuer's name: several may share a Redis."""
        self._links = links
        self._tag = f"{PREFIX}{{{issuer}}}:"
        self._forget_ms = math.ceil(config.forget * 1000)
        self._longest_ms = math.ceil(config.longest * 1000)
        self._monotonic = monotonic
        self._again_at = 0.0  # monotonic

    async def enter(self, keys: Sequence[str], free: Sequence[int], now: float) -> float:
        """Seconds to wait; 0.0: nobody has to, and the attempt counts on every key. Raises CountsUnavailable."""
        wait_ms = await self._run(_ENTER, keys, self._forget_ms, self._longest_ms, *free)
        return int(wait_ms) / 1000

    async def take_back(self, keys: Sequence[str], anew: Sequence[bool]) -> None:
        """One failure less for each key, or none at all (`anew`), and no block. Raises CountsUnavailable."""
        await self._run(_TAKE_BACK, keys, *(int(is_anew) for is_anew in anew))

    async def _run(self, script: str, keys: Sequence[str], *arguments: int) -> Reply:
        if self._monotonic() < self._again_at:
            raise CountsUnavailable("Redis did not answer a moment ago")
        names = [name for key in keys for name in (f"{self._tag}{key}", f"{self._tag}{key}:block")]
        try:
            return await self._links.call(names[0], "EVAL", script, len(names), *names, *arguments)
        except LinkLost as fault:
            self._again_at = self._monotonic() + _AGAIN_S
            raise CountsUnavailable(f"Redis: {fault}") from fault
        except ReplyError as fault:
            # Answered, so nobody has waited; the text may repeat what was sent.
            raise CountsUnavailable(f"Redis refuses: {fault.code}") from fault

    def close(self) -> None:
        """Close the links."""
        self._links.close()
