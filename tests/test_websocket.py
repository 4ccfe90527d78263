"""A WebSocket's handshake as a request: whose page may connect, and where its token goes."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import BadRequest, Denied, GatewayError
from gateway.websocket import Offer, WebSocketRules

HOST = b"shop.example"


def rules(**changes: Any) -> WebSocketRules:
    """An ordinary route's, changed as told."""
    fields: dict[str, Any] = {
        "enabled": True,
        "max_message": 1000,
        "idle_s": 60.0,
        "origins": None,
        "has_cookies": False,
    }
    return WebSocketRules(**{**fields, **changes})


LISTED = frozenset({b"https://app.example", b"https://admin.example:8443"})


@pytest.mark.parametrize(
    ("changes", "origins", "is_bearer", "error"),
    [
        ({}, [], False, None),
        ({}, [b"https://evil.example"], True, None),  # whoever can set the token may connect
        ({"enabled": False}, [], True, BadRequest),
        # a list counts for every page, and for pages only
        ({"origins": LISTED}, [], True, None),
        ({"origins": LISTED}, [b"https://app.example"], True, None),
        ({"origins": LISTED}, [b"HTTPS://App.Example"], True, None),
        ({"origins": LISTED}, [b"https://admin.example:8443"], False, None),
        ({"origins": LISTED}, [b"https://admin.example"], True, Denied),
        ({"origins": LISTED}, [b"http://app.example"], True, Denied),
        ({"origins": LISTED}, [b"null"], True, Denied),
        ({"origins": LISTED}, [b"https://app.example", b"https://app.example"], True, Denied),
        ({"origins": LISTED, "has_cookies": True}, [b"https://app.example"], False, None),
        # a cookie comes with any page's handshake
        ({"has_cookies": True}, [], False, None),
        ({"has_cookies": True}, [b"https://shop.example"], False, None),
        ({"has_cookies": True}, [b"https://evil.example"], True, None),
        ({"has_cookies": True}, [b"https://evil.example"], False, Denied),
        ({"has_cookies": True}, [b"https://shop.example:444"], False, Denied),
        ({"has_cookies": True}, [b"https://shop.example.evil.example"], False, Denied),
        ({"has_cookies": True}, [b"null"], False, Denied),
        ({"has_cookies": True}, [b"https://shop.example", b"https://shop.example"], False, Denied),
    ],
)
def test_which_pages_may_connect(
    changes: dict[str, Any], origins: list[bytes], is_bearer: bool, error: type[GatewayError] | None
) -> None:
    """Those that are listed; else those that hold the token themselves, or stand on the same host (RFC 6455 §10.2)."""
    headers = [(b"host", HOST), *((b"origin", origin) for origin in origins)]
    if is_bearer:
        headers.append((b"authorization", b"Bearer a.b.c"))
    if error is None:
        rules(**changes).check(headers, HOST)
    else:
        with pytest.raises(error):
            rules(**changes).check(headers, HOST)


async def _never(*_: Any) -> Any:
    raise AssertionError("nothing is asked or said yet")


@pytest.mark.parametrize(
    ("offered", "authorization", "passed", "bearer"),
    [
        ([], [], [], None),
        (["chat.v1"], [], ["chat.v1"], None),
        (["bearer", "a.b.c", "chat.v1"], [b"Bearer a.b.c"], ["chat.v1"], "bearer"),
        (["chat.v1", "BEARER", "a.b.c"], [b"Bearer a.b.c"], ["chat.v1"], "BEARER"),
        (["bearer", "a", "bearer", "b"], [b"Bearer a", b"Bearer b"], [], "bearer"),
    ],
)
def test_a_token_among_the_subprotocols_becomes_a_field(
    offered: list[str], authorization: list[bytes], passed: list[str], bearer: str | None
) -> None:
    """The steps of a request then treat it as any; what is offered to the upstream is the rest."""
    scope = {
        "type": "websocket",
        "scheme": "wss",
        "raw_path": b"/a",
        "subprotocols": offered,
        "headers": [(b"host", HOST), (b"sec-websocket-protocol", ", ".join(offered).encode())],
    }
    offer = Offer.of(scope, _never, _never)
    request = offer.as_request(scope)
    assert (request["type"], request["method"], request["scheme"]) == ("http", "GET", "https")
    assert request["raw_path"] == b"/a"
    assert [value for name, value in request["headers"] if name == b"authorization"] == authorization
    assert b"sec-websocket-protocol" not in dict(request["headers"])
    assert (offer.subprotocols, offer.bearer) == (passed, bearer)
