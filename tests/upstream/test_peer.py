"""Who is calling, and whom it is believed from."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.peer import Peer, Peers

Header = tuple[bytes, bytes]

PEERS = Peers(("10.0.0.0/8", "2001:db8:1::/48"))


def _resolve(address: str, *headers: Header, peers: Peers = PEERS, host: bytes = b"api.test") -> Peer:
    return peers.resolve(address, "http", host, 8080, headers)


def _fields(peer: Peer) -> dict[bytes, bytes]:
    assert len({name for name, _ in peer.fields}) == len(peer.fields)
    return dict(peer.fields)


def test_a_stranger_is_who_the_connection_says() -> None:
    """Nothing a stranger reports counts; every field is written anew."""
    peer = _resolve(
        "198.51.100.7",
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"evil.test"),
        (b"x-forwarded-port", b"1"),
        (b"forwarded", b"for=127.0.0.1"),
    )
    assert (peer.client_ip, peer.scheme, peer.host, peer.trusted) == ("198.51.100.7", b"http", b"api.test", False)
    assert _fields(peer) == {
        b"x-forwarded-for": b"198.51.100.7",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"api.test",
        b"x-forwarded-port": b"8080",
        b"forwarded": b'for=198.51.100.7;host="api.test";proto=http',
    }


def test_nobody_is_trusted_by_default() -> None:
    """Without `trusted_proxies` not even loopback is believed."""
    peer = _resolve("127.0.0.1", (b"x-forwarded-for", b"192.0.2.1"), peers=Peers(()))
    assert (peer.client_ip, peer.trusted) == ("127.0.0.1", False)


def test_a_trusted_proxy_is_believed() -> None:
    """All four fields of a trusted proxy count, and it becomes a part of the chain."""
    peer = _resolve(
        "10.0.0.1",
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"shop.test:8443"),
        (b"x-forwarded-port", b"8443"),
    )
    assert (peer.client_ip, peer.scheme, peer.host, peer.port) == ("192.0.2.1", b"https", b"shop.test:8443", b"8443")
    assert _fields(peer)[b"x-forwarded-for"] == b"192.0.2.1, 10.0.0.1"
    assert _fields(peer)[b"forwarded"] == b'for=192.0.2.1;host="shop.test:8443";proto=https, for=10.0.0.1'


@pytest.mark.parametrize(
    ("reported", "chain"),
    [
        ([b"192.0.2.1"], "192.0.2.1, 10.0.0.1"),
        ([b"192.0.2.1, 10.0.0.2"], "192.0.2.1, 10.0.0.2, 10.0.0.1"),
        ([b"192.0.2.1", b"10.0.0.2"], "192.0.2.1, 10.0.0.2, 10.0.0.1"),
        # The leftmost entries were written by the client itself.
        ([b"127.0.0.1, 192.0.2.1"], "192.0.2.1, 10.0.0.1"),
        ([b"10.0.0.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1, 10.0.0.2, 10.0.0.1"),
        # All are proxies of ours: the first is the caller.
        ([b"10.0.0.3, 10.0.0.2"], "10.0.0.3, 10.0.0.2, 10.0.0.1"),
        # Forms of addresses.
        ([b"192.0.2.1:4711"], "192.0.2.1, 10.0.0.1"),
        ([b"2001:db8::7"], "2001:db8::7, 10.0.0.1"),
        ([b"[2001:db8::7]:4711"], "2001:db8::7, 10.0.0.1"),
        ([b"::ffff:192.0.2.1"], "192.0.2.1, 10.0.0.1"),
        ([b"192.0.2.1, 2001:db8:1::5"], "192.0.2.1, 2001:db8:1::5, 10.0.0.1"),
        # What is no address ends the reading.
        ([b"unknown"], "10.0.0.1"),
        ([b"192.0.2.1, unknown"], "10.0.0.1"),
        ([b"192.0.2.1, "], "192.0.2.1, 10.0.0.1"),
        ([b"fe80::1%eth0"], "10.0.0.1"),
        ([b"192.0.2.1\r\nx: y"], "10.0.0.1"),
        ([b", ".join([b"10.0.0.2"] * 200)], ", ".join(["10.0.0.2"] * 32 + ["10.0.0.1"])),
    ],
)
def test_the_chain_is_read_from_the_right(reported: list[bytes], chain: str) -> None:
    """Each address that a trusted proxy reported is taken, up to the first that is not trusted itself."""
    peer = _resolve("10.0.0.1", *((b"x-forwarded-for", value) for value in reported))
    assert _fields(peer)[b"x-forwarded-for"] == chain.encode()
    assert peer.client_ip == chain.partition(",")[0]


@pytest.mark.parametrize(
    ("forwarded", "client", "scheme", "host"),
    [
        (b"for=192.0.2.1;proto=https;host=shop.test", "192.0.2.1", b"https", b"shop.test"),
        (b'For="[2001:db8::7]:4711"; Proto=HTTPS', "2001:db8::7", b"https", b"api.test"),
        (b"for=127.0.0.1;proto=https, for=192.0.2.1;proto=http", "192.0.2.1", b"http", b"api.test"),
        (b"for=192.0.2.1;proto=https, for=10.0.0.2;proto=http", "192.0.2.1", b"https", b"api.test"),
        (b'for=192.0.2.1;host="shop.test:8443"', "192.0.2.1", b"http", b"shop.test:8443"),
        (b'for="_hidden"', "10.0.0.1", b"http", b"api.test"),
        (b"for=unknown", "10.0.0.1", b"http", b"api.test"),
        (b'for=192.0.2.1;host="evil\\"', "10.0.0.1", b"http", b"api.test"),
        # A stranger's open quote in front of what the proxy added.
        (b'for=127.0.0.1;x=", for="[2001:db8::7]"', "10.0.0.1", b"http", b"api.test"),
        (b'for=127.0.0.1;x=",", for="[2001:db8::7]"', "2001:db8::7", b"http", b"api.test"),
        (b"proto=https", "10.0.0.1", b"http", b"api.test"),
    ],
)
def test_forwarded_counts_where_it_is_alone(forwarded: bytes, client: str, scheme: bytes, host: bytes) -> None:
    """RFC 7239 is understood when the proxy speaks it instead of X-Forwarded-For."""
    peer = _resolve("10.0.0.1", (b"forwarded", forwarded))
    assert (peer.client_ip, peer.scheme, peer.host) == (client, scheme, host)


def test_x_forwarded_for_counts_before_forwarded() -> None:
    """A proxy that writes only X-Forwarded-For passes a client's Forwarded on, so that one cannot be believed."""
    peer = _resolve("10.0.0.1", (b"x-forwarded-for", b"192.0.2.1"), (b"forwarded", b"for=127.0.0.1;proto=https"))
    assert (peer.client_ip, peer.scheme) == ("192.0.2.1", b"http")
    assert b"127.0.0.1" not in _fields(peer)[b"forwarded"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-forwarded-proto", b"gopher"),
        (b"x-forwarded-proto", b"https\r\nx: y"),
        (b"x-forwarded-host", b'a";for=1'),
        (b"x-forwarded-host", b"a b"),
        (b"x-forwarded-host", b""),
        (b"x-forwarded-port", b"80a"),
        (b"x-forwarded-port", b"123456"),
    ],
)
def test_what_is_unreadable_is_as_if_absent(name: bytes, value: bytes) -> None:
    """A trusted proxy's nonsense is not passed on."""
    peer = _resolve("10.0.0.1", (name, value))
    assert peer.fields == _resolve("10.0.0.1").fields


def test_an_unusable_host_is_left_out() -> None:
    """A Host that could break out of a quoted string is not quoted."""
    fields = _fields(_resolve("198.51.100.7", host=b'a";for=127.0.0.1'))
    assert b"x-forwarded-host" not in fields
    assert fields[b"forwarded"] == b"for=198.51.100.7;proto=http"


def test_a_unix_socket_has_no_address() -> None:
    """RFC 7239 §6.2: `unknown`."""
    peer = _resolve("")
    assert (peer.client_ip, peer.trusted) == ("unknown", False)


def test_an_ipv6_client_is_quoted_in_forwarded() -> None:
    """RFC 7239 §6: an IPv6 address stands in brackets and quotes."""
    assert _fields(_resolve("2001:db8::7"))[b"forwarded"].startswith(b'for="[2001:db8::7]";')


def test_the_memo_stays_bounded() -> None:
    """Many callers with many hosts do not fill the memory."""
    peers = Peers(())
    for number in range(10_000):
        peers.resolve("198.51.100.7", "http", b"h%d.test" % number, 80, [])
    assert len(peers._memo) <= 4096


_NASTY = st.one_of(
    st.binary(max_size=30),
    st.from_regex(re.compile(rb'(for=|[0-9.]{7,11}|10\.0\.0\.\d|[,;"= \[\]:\\]){0,8}'), fullmatch=True),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-forwarded-for", b"forwarded", b"x-forwarded-proto", b"x-forwarded-host"]), _NASTY
        ),
        max_size=6,
    ),
    st.sampled_from(["10.0.0.1", "198.51.100.7", "2001:db8:1::9", ""]),
    _NASTY,
)
def test_no_report_can_break_a_field(headers: list[Header], address: str, host: bytes) -> None:
    """Whatever is reported, every value written is plain ASCII of the right shape, and ends with the connection."""
    fields = _fields(_resolve(address, *headers, host=host))
    node = rb"[0-9a-f.:]+|unknown"
    assert re.fullmatch(rb"(%b)(, (%b))*" % (node, node), fields[b"x-forwarded-for"])
    assert fields[b"x-forwarded-for"].endswith(address.encode() or b"unknown")
    assert fields[b"x-forwarded-proto"] in (b"http", b"https")
    assert re.fullmatch(rb"[0-9]{1,5}", fields[b"x-forwarded-port"])
    assert re.fullmatch(rb'for=[^;,]+(;host="[A-Za-z0-9._:\[\]-]+")?;proto=https?(, for=[^;,]+)*', fields[b"forwarded"])
