"""Records in Redis: one hash each, changed by scripts, so that each step is atomic; standalone, Sentinel or Cluster.

    <prefix><name>   fingerprint, owner, lease (the server's time in ms at which it ends), answer; ended by its TTL

Times are the server's own, so that gateways need not agree on theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from gateway.idempotency.contract import Claim, Found, State, StoreUnavailable
from gateway.redis.address import parse_redis
from gateway.redis.link import LinkLost, Reply, ReplyError
from gateway.redis.masters import MasterLinks
from gateway.redis.topology import Topology

_CLOCK: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

_BEGIN: Final = (
    _CLOCK
    + """
local found = redis.call('HMGET', KEYS[1], 'fingerprint', 'owner', 'lease', 'answer')
if found[1] and found[2] ~= ARGV[1] then
  if found[1] ~= ARGV[2] then return {'reused'} end
  if found[4] then return {'answered', found[4]} end
  if tonumber(found[3]) > now then return {'in_use'} end
  if ARGV[5] == '0' then return {'unknown'} end
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fingerprint', ARGV[2], 'lease', now + ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'claimed'}
"""
)

_RENEW: Final = (
    _CLOCK
    + """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'lease', now + ARGV[2])
return 1
"""
)

# A record that is gone was lost by the store, not taken by somebody: the answer is kept all the same.
_SETTLE: Final = """
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fingerprint', ARGV[2], 'lease', 0, 'answer', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""

_LAPSE: Final = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'lease', 0)
return 1
"""

_RELEASE: Final = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class RedisStore:
    """The store behind `redis://`, `unix://` and their kin. Nothing is connected before the first call."""

    def __init__(self, url: str, prefix: str, ca: Path | None, timeout_s: float) -> None:
        """Raises ValueError if the address cannot be read, OSError if the authority's file cannot."""
        self._links = MasterLinks(Topology(parse_redis(url), ca, timeout_s), timeout_s)
        self._prefix = prefix

    async def begin(self, claim: Claim, lease_s: float, *, takes_over: bool) -> Found:
        """Claim the record, unless it is taken."""
        reply = await self._run(
            _BEGIN, claim, claim.fingerprint, _ms(lease_s), _ms(claim.ttl_s), "1" if takes_over else "0"
        )
        state = cast(State, reply[0].decode())
        return Found(state, reply[1]) if state == "answered" else Found(state)

    async def renew(self, claim: Claim, lease_s: float) -> bool:
        """Prolong the lease."""
        return bool(await self._run(_RENEW, claim, _ms(lease_s)))

    async def settle(self, claim: Claim, answer: bytes) -> bool:
        """Keep the answer."""
        return bool(await self._run(_SETTLE, claim, claim.fingerprint, answer, _ms(claim.ttl_s)))

    async def lapse(self, claim: Claim) -> None:
        """End the lease."""
        await self._run(_LAPSE, claim)

    async def release(self, claim: Claim) -> None:
        """Forget the record."""
        await self._run(_RELEASE, claim)

    async def tidy(self) -> None:
        """Nothing to do: Redis ends records by itself."""

    async def close(self) -> None:
        """Close the connections."""
        self._links.close()

    async def _run(self, script: str, claim: Claim, *arguments: str | bytes | int) -> Reply:
        key = self._prefix + claim.name
        try:
            return await self._links.call(key, "EVAL", script, 1, key, claim.owner, *arguments)
        except LinkLost as fault:
            raise StoreUnavailable(f"the store is not available: {fault}") from fault
        except ReplyError as fault:
            raise StoreUnavailable(f"the store refuses: {fault.code}") from fault


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
