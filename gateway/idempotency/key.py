"""The `Idempotency-Key` field, and what is made of it: the name of a record, the fingerprint of a request.

The field is an Item of RFC 9651 whose value is a String (draft-ietf-httpapi-idempotency-key-header, section 2.1). Many
clients send the bare characters instead, so that `abc` is read as `"abc"`: they are the same key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from gateway.errors import BadRequest
from gateway.fields import Header

LONGEST: Final = 255  # characters, unescaped

_TEXT = rb"\"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\"\\])*)\""
_VALUE = _TEXT.replace(b"((?:", b"(?:(?:") + rb"|[A-Za-z0-9!#$%&'*+.^_`|~:/?-]+"
_STRING = re.compile(_TEXT + rb"(?: *; *[a-z*][a-z0-9_.*-]*(?:=(?:" + _VALUE + rb"))?)*")  # parameters mean nothing
_BARE = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~:/=@-]+")


def find_key(headers: Iterable[Header]) -> str | None:
    """The request's key, unescaped; None without the field. Raises `BadRequest` for one that cannot be read."""
    values = [value for name, value in headers if name == b"idempotency-key"]
    if not values:
        return None
    if len(values) > 1:
        raise BadRequest("Idempotency-Key stands more than once.")
    value = values[0].strip(b" \t")
    string = _STRING.fullmatch(value)
    if string is not None:
        key = re.sub(rb"\\(.)", rb"\1", string[1])
    elif _BARE.fullmatch(value) is not None:
        key = value
    else:
        raise BadRequest("Idempotency-Key is neither a string in quotes nor a plain token.")
    if not 0 < len(key) <= LONGEST:
        raise BadRequest(f"Idempotency-Key has 1 to {LONGEST} characters.")
    return key.decode("ascii")


def record_name(route: str, issuer: str, subject: str, key: str) -> str:
    """The name of the record of this key, for this caller, on this route: a hash, which tells none of them."""
    parts = (part.encode("utf-8", "surrogatepass") for part in (route, issuer, subject, key))
    return sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


def fingerprint(method: bytes, target: bytes, body: bytes) -> bytes:
    """32 bytes that are the same for the same request and no other."""
    return sha256(b"%b %b\n%b" % (method, target, sha256(body).digest())).digest()
