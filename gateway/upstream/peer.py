"""Who is calling, once trusted proxies were believed; and the fields that tell the upstream (RFC 7239, X-Forwarded-*).

Only what somebody trusted vouches for goes on. The chain is read from the right: each address that a trusted proxy
reported is taken, and reading stops at the first address that is not itself a trusted proxy. What stands further left
was written by a stranger and is dropped, because many backends believe the leftmost entry.

X-Forwarded-For counts before Forwarded: proxies that know only the former pass a client's Forwarded on untouched.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Header = tuple[bytes, bytes]

_MEMO_ENTRIES: Final = 4096
_MEMO_HOST_BYTES: Final = 255
_MAX_HOPS: Final = 32
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_ELEMENT_FOR: Final = re.compile(rb'(?:^|;)[ \t]*for=(?:"([^"\\]*)"|([^;"\s]*))', re.IGNORECASE)
_ELEMENT_PROTO: Final = re.compile(rb'(?:^|;)[ \t]*proto="?(https?)"?[ \t]*(?:;|$)', re.IGNORECASE)
_ELEMENT_HOST: Final = re.compile(rb'(?:^|;)[ \t]*host=(?:"([^"\\]*)"|([^;"\s]*))', re.IGNORECASE)
_ELEMENT: Final = re.compile(rb'(?:"[^"\\]*"|[^,"])+')

_READ: Final = frozenset(
    (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded")
)


@dataclass(frozen=True, slots=True)
class Peer:
    """The caller of one request, as far as it is known for sure."""

    client_ip: str  # the first address that no trusted proxy stands behind; "unknown" for a Unix socket
    scheme: bytes  # http or https, as the client used it
    host: bytes  # the authority the client asked for; b"" when it had none or an unusable one
    port: bytes  # the port the client connected to
    trusted: bool  # whether the connection itself comes from a trusted proxy
    fields: tuple[Header, ...]  # X-Forwarded-* and Forwarded for the upstream
    lines: bytes  # the same, as they are sent


class Peers:
    """Resolves callers; remembers those who need no reading of headers.

    The memo is filled here, valid for ever (its answers depend on its keys only) and emptied when it is full.
    """

    __slots__ = ("_memo", "_networks")

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        """`trusted_proxies` are CIDRs, as `server.trusted_proxies` has them."""
        self._networks = tuple(ipaddress.ip_network(cidr) for cidr in trusted_proxies)
        self._memo: dict[tuple[str, str, bytes, int], Peer] = {}

    def is_trusted(self, address: str) -> bool:
        """Whether what this address says about others is believed."""
        if not self._networks:
            return False
        parsed = _parse_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def resolve(self, address: str, scheme: str, host: bytes, port: int, headers: Sequence[Header]) -> Peer:
        """The caller behind a connection from `address` ("" when it has none) to our `port`, asking for `host`."""
        key = (address, scheme, host, port)
        peer: Peer | None = self._memo.get(key)
        if peer is None:
            peer = self._from_connection(address, scheme.encode(), host, b"%d" % port)
            if len(host) <= _MEMO_HOST_BYTES:
                if len(self._memo) >= _MEMO_ENTRIES:
                    self._memo.clear()
                self._memo[key] = peer
        if peer.trusted:
            reported = [pair for pair in headers if pair[0] in _READ]
            if reported:
                return self._from_report(peer, reported)
        return peer

    def _from_connection(self, address: str, scheme: bytes, host: bytes, port: bytes) -> Peer:
        parsed = _parse_address(address)
        chain = [str(parsed) if parsed is not None else "unknown"]
        return _peer(chain, scheme, host, port, self.is_trusted(address))

    def _from_report(self, peer: Peer, reported: list[Header]) -> Peer:
        """What the trusted proxy says, field by field; whatever is unreadable is as if it were absent."""
        addresses = _values(reported, b"x-forwarded-for")
        elements = _elements(reported)
        if addresses or not elements:
            scheme, host = _last(reported, b"x-forwarded-proto").lower(), _last(reported, b"x-forwarded-host")
            chain, _ = self._verified(peer.client_ip, [_parse_node(value) for value in addresses])
        else:
            nodes = [_first_group(_ELEMENT_FOR.search(element)) for element in elements]
            chain, taken = self._verified(peer.client_ip, [_parse_node(node) for node in nodes])
            nearest = elements[-taken] if taken else b""
            proto = _ELEMENT_PROTO.search(nearest)
            scheme = proto[1].lower() if proto is not None else b""
            host = _first_group(_ELEMENT_HOST.search(nearest))
        port = _last(reported, b"x-forwarded-port")
        return _peer(
            chain,
            scheme if scheme in (b"http", b"https") else peer.scheme,
            host if _HOST.fullmatch(host) else peer.host,
            port if _PORT.fullmatch(port) else peer.port,
            True,
        )

    def _verified(self, connected: str, reported: list[str | None]) -> tuple[list[str], int]:
        """The chain from the client to us, and how many of the reported entries it uses."""
        chain = [connected]
        taken = 0
        for address in reversed(reported[-_MAX_HOPS:]):
            if address is None or not self.is_trusted(chain[0]):
                break
            chain.insert(0, address)
            taken += 1
        return chain, taken


def _peer(chain: list[str], scheme: bytes, host: bytes, port: bytes, trusted: bool) -> Peer:
    host = host if _HOST.fullmatch(host) else b""
    fields = [
        (b"x-forwarded-for", ", ".join(chain).encode()),
        (b"x-forwarded-proto", scheme),
        (b"x-forwarded-host", host),
        (b"x-forwarded-port", port),
        (b"forwarded", _forwarded(chain, scheme, host)),
    ]
    known = tuple(pair for pair in fields if pair[1])
    return Peer(chain[0], scheme, host, port, trusted, known, b"".join(b"%b: %b\r\n" % pair for pair in known))


def _forwarded(chain: list[str], scheme: bytes, host: bytes) -> bytes:
    """One element per hop; host and scheme belong to the first, which the client spoke to (RFC 7239 §4)."""
    elements = [b'for="[%b]"' % node.encode() if ":" in node else b"for=" + node.encode() for node in chain]
    if host:
        elements[0] += b';host="' + host + b'"'
    elements[0] += b";proto=" + scheme
    return b", ".join(elements)


def _values(reported: list[Header], name: bytes) -> list[bytes]:
    """The list members of every field of this name, in order, empty ones ignored (RFC 9110 §5.6.1)."""
    members = [member.strip() for found, value in reported if found == name for member in value.split(b",")]
    return [member for member in members if member]


def _elements(reported: list[Header]) -> list[bytes]:
    """The elements of every Forwarded field; none at all if a quote is left open or anything is escaped.

    A stranger's open quote could otherwise swallow the element that the trusted proxy put behind it.
    """
    values = [value for found, value in reported if found == b"forwarded"]
    if any(value.count(b'"') % 2 or b"\\" in value for value in values):
        return []
    members = [member.strip() for value in values for member in _ELEMENT.findall(value)]
    return [member for member in members if member]


def _last(reported: list[Header], name: bytes) -> bytes:
    """The member that the nearest proxy wrote."""
    values = _values(reported, name)
    return values[-1] if values else b""


def _first_group(match: re.Match[bytes] | None) -> bytes:
    return b"" if match is None else match[1] or match[2] or b""


def _parse_node(node: bytes) -> str | None:
    """The address of `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:5`; None for all else."""
    text = node.decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    parsed = _parse_address(text)
    return None if parsed is None else str(parsed)


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address  # a dual-stack socket reports IPv4 clients in this form
    return address
