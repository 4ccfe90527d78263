"""Redis Cluster's 16,384 hash slots.

A Redis outside a Cluster counts as one master of all slots, so that there is one rule for both.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final

SLOTS: Final = 16384
ALL_SLOTS: Final = frozenset(range(SLOTS))


def slot_of(key: str) -> int:
    """The slot of a whole key, prefix included (Redis Cluster specification, "Key distribution model").

    Only what stands between the first `{` and the next `}` counts, if that is not empty.
    """
    _, brace, rest = key.partition("{")
    if brace:
        tag, brace, _ = rest.partition("}")
        if brace and tag:
            key = tag
    return crc_hqx(key.encode("utf-8", "surrogateescape"), 0) % SLOTS
