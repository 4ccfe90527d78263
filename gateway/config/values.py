"""Text with a grammar: names, addresses, header names, origins, scopes, paths beside the YAML file; and `Model`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretBytes, ValidationInfo

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A name that can stand in a Redis key, a metric label and a log line: letters, digits, `_ . -`; no colon."""

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""An RFC 9110 §5.6.2 token."""

# Set by the gateway itself or by the framing of the message: nothing an identity may be written into.
_RESERVED = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "content-length", "host", "expect", "date", "server", "via", "forwarded"}
    | {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-request-id", "traceparent"}
    | {"content-type", "content-encoding", "authorization", "cookie", "set-cookie"}
)
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_URL = re.compile(r"https?://[^\s/?#@]+(?:[/?][^\s#]*)?")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]*[A-Za-z0-9_~-])+")
_PASSWORD_BYTES = 16  # 128 bits if it is random
_LISTEN = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class FieldError(ValueError):
    """A problem of one key that only the whole mapping can see; the report points at that key."""

    def __init__(self, key: str, message: str) -> None:
        """`key` is a key of the mapping that is being checked."""
        super().__init__(message)
        self.key = key


def field_name(name: str) -> str:
    """`name` in lower case if it is an RFC 9110 token that a proxy may set freely; ValueError otherwise."""
    lower = name.lower()
    if TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a header name (RFC 9110 §5.6.2)")
    if "_" in name:
        raise ValueError(f"{name!r} holds an underscore, which many servers fold into a hyphen; use a hyphen")
    if lower in _RESERVED:
        raise ValueError(f"{name!r} is a hop-by-hop, framing or routing header and cannot carry identity")
    return lower


def listen_port(address: str) -> int:
    """The port of a `Listen` address."""
    return int(address.rpartition(":")[2])


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address stays on this machine by its spelling alone; names are not looked up."""
    return host.strip("[]") in ("localhost", "::1") or host.startswith("127.")


def _listen(value: str) -> str:
    match = _LISTEN.fullmatch(value)
    if match is None or int(match[1]) > 65535:
        raise ValueError("write HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080")
    return value


def _origin(value: str) -> str:
    match = _ORIGIN.fullmatch(value)
    if match is None or int(match[1] or 1) not in range(1, 65536):
        raise ValueError("write an origin, http://HOST:PORT or https://HOST:PORT, without a path")
    return value


def _url(value: str) -> str:
    if _URL.fullmatch(value) is None:
        raise ValueError("write an http:// or https:// URL, without user name or fragment")
    return value


def _scope(value: str) -> str:
    if _SCOPE.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not one scope (RFC 6749 §3.3): several scopes are several list items")
    return value


def _plain_name(value: str) -> str:
    if TOKEN.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a plain name (RFC 6265 §4.1.1)")
    return value


def _plain_path(value: str) -> str:
    if _PLAIN_PATH.fullmatch(value) is None:
        raise ValueError("write a plain path, for example /.gateway, without a slash at its end")
    return value


def _password(value: SecretBytes) -> SecretBytes:
    if len(value.get_secret_value()) < _PASSWORD_BYTES:
        raise ValueError(f"shorter than {_PASSWORD_BYTES} bytes: it could be guessed")
    return value


def _method(value: str) -> str:
    if TOKEN.fullmatch(value) is None or value != value.upper():
        raise ValueError(f"{value!r} is not a method: methods are upper-case tokens (RFC 9110 §9.1)")
    if value == "CONNECT":
        raise ValueError("CONNECT opens a tunnel and cannot be routed by path")
    return value


def beside_the_file(path: str | Path, context: Any) -> Path:
    """`path` itself if absolute, else relative to the folder of the YAML file, which the loader gives as `base`."""
    base = context.get("base") if isinstance(context, dict) else None
    return Path(os.path.normpath(base / path)) if base is not None else Path(path)


def _file_path(value: Path, info: ValidationInfo) -> Path:
    if str(value) in ("", "."):
        raise ValueError("write the path of a file")
    return beside_the_file(value, info.context)


Listen = Annotated[str, AfterValidator(_listen)]
"""`HOST:PORT`; port 0 lets the system choose."""
FieldName = Annotated[str, AfterValidator(field_name)]
"""A header name, lower-case."""
Origin = Annotated[str, AfterValidator(_origin)]
"""`http://HOST:PORT` or `https://HOST:PORT`."""
Url = Annotated[str, AfterValidator(_url)]
"""An http or https URL."""
Scope = Annotated[str, AfterValidator(_scope)]
"""One scope-token of RFC 6749 §3.3."""
PlainName = Annotated[str, AfterValidator(_plain_name)]
"""The name of a cookie or of a query parameter."""
PlainPath = Annotated[str, AfterValidator(_plain_path)]
"""An absolute path that every server reads alike: no percent-encoding, no dot segments."""
Password = Annotated[SecretBytes, AfterValidator(_password)]
"""A secret that somebody presents; never shown."""
Method = Annotated[str, AfterValidator(_method)]
"""An upper-case HTTP method."""
FilePath = Annotated[Path, AfterValidator(_file_path)]
"""A file's path; a relative one counts from the folder of the YAML file."""
