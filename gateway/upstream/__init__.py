"""Which endpoint, and the bytes to and from it: our own HTTP/1.1 client, because nothing general is lean enough here.

In the order in which a request meets them:

    peer       who is calling, after trusted proxies were believed
    headers    what of the client's head may go on, what is added; the same for responses
    endpoints  one upstream: its endpoints in turn, those that fail left out for a while
    pool       the connections to one endpoint: kept, bounded, swept for deadlines
    http1      one connection: one exchange after the other, never two at once
    response   how a response is framed (RFC 9112 §6), as rules without sockets
    request    what is sent: its head as bytes
    forward    one request: ask, retry once where that is safe, stream the answer
    conduit    the middle of a long body, moved by the kernel
    websocket  one WebSocket to an endpoint · relay  messages between it and the client's

Promises: memory per request is bounded in both directions, whatever either side sends; every wait has a deadline; a
connection is used again only when both messages on it ended exactly where they said; nothing that an upstream or a
client writes can add a line to the other side's head. Imports only `errors`, `config.schema` and `telemetry`.
"""
