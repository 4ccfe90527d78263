"""What is known of a request when it comes in."""

from typing import Any

import pytest

from gateway.upstream.arrival import open_exchange
from gateway.upstream.peer import Peers


def scope(*headers: tuple[bytes, bytes], **changes: Any) -> dict[str, Any]:
    """An ASGI scope as the server makes it."""
    return {
        "method": "GET",
        "scheme": "http",
        "client": ("192.0.2.7", 4711),
        "server": ("127.0.0.1", 8080),
        "raw_path": b"/a%20b",
        "headers": list(headers),
        **changes,
    }


def test_the_record_says_who_called_what_and_under_which_id() -> None:
    """A stranger's id is not taken over; the query is not in the record."""
    asked = scope((b"host", b"shop.example"), (b"x-request-id", b"theirs"), query_string=b"secret=1")
    exchange, peer, host, identifier = open_exchange(asked, Peers(()), "one")
    assert (exchange.method, exchange.host, exchange.path, exchange.route) == ("GET", "shop.example", "/a%20b", "one")
    assert (exchange.client, peer.client_ip, host) == ("192.0.2.7", "192.0.2.7", b"shop.example")
    assert exchange.request_id.encode() == identifier != b"theirs"
    assert len(identifier) == 32


def test_a_trusted_proxy_names_the_caller_and_the_id() -> None:
    """What it says goes into the record."""
    asked = scope((b"host", b"h"), (b"x-forwarded-for", b"198.51.100.4"), (b"x-request-id", b"abc-1"))
    exchange, _, _, identifier = open_exchange(asked, Peers(("192.0.2.0/24",)))
    assert (exchange.client, exchange.request_id, identifier) == ("198.51.100.4", "abc-1", b"abc-1")


@pytest.mark.parametrize("changes", [{"client": None}, {"server": None}, {"server": ("/run/edge.sock", None)}])
def test_a_unix_socket_has_no_addresses(changes: dict[str, Any]) -> None:
    """And no Host need be there."""
    exchange, _, host, _ = open_exchange(scope(**changes), Peers(()))
    assert (exchange.host, host) == ("", b"")
    assert exchange.client in ("unknown", "192.0.2.7")


@pytest.mark.parametrize(
    ("raw_path", "is_clean"),
    [(b"/a%20b", True), (b'/a"b', False), (b"/a\\b", False), (b"/\xe9", False), (b"/\t", False)],
)
def test_the_record_says_whether_its_texts_are_clean(raw_path: bytes, is_clean: bool) -> None:
    """So that the log need not look at them again."""
    assert open_exchange(scope(raw_path=raw_path), Peers(()))[0].is_clean == is_clean
