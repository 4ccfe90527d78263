"""Redirections of a Redis Cluster: `MOVED SLOT HOST:PORT` and `ASK SLOT HOST:PORT`, as its specification has them."""

from __future__ import annotations

import re
from typing import Final

from gateway.redis.address import Endpoint
from gateway.redis.link import LinkLost, Reply, ReplyError

MOST_HOPS: Final = 5
"""Masters that send each other a command are a cluster in trouble; it must not last for ever."""

_TARGET: Final = re.compile(r"(?:MOVED|ASK) \d+ (?P<host>.*):(?P<port>\d+)")


def redirection(reply: Reply) -> ReplyError | None:
    """The reply itself, if it says that another master has the slot."""
    return reply if isinstance(reply, ReplyError) and reply.code in ("MOVED", "ASK") else None


def target(error: ReplyError) -> Endpoint:
    """The master that has the slot. Raises `LinkLost` if none is named."""
    match = _TARGET.fullmatch(str(error))
    if match is None or not match["host"]:
        raise LinkLost("a redirection without an address")
    return Endpoint(match["host"], int(match["port"]))
