"""RFC 7009: a client hands in an access token that is no longer wanted.

The client proves who it is (RFC 6749 §2.3.1), by Basic or in the form, with a password of the configuration. A token
that is not valid here, or not any more, is what the client wanted: 200 and nothing to do (RFC 7009 §2.2).
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_plus

from gateway.config.schema import RevocationClient
from gateway.denylist.contract import StoreError
from gateway.denylist.grammar import make_entry
from gateway.denylist.intake import Intake, Source, Word
from gateway.errors import KeysUnavailable, TokenExpired, TokenInvalid
from gateway.inlets.message import Message, Reply, is_same_secret, read_form
from gateway.tokens.claims import Token
from gateway.tokens.verifier import Verifier

_NOBODY: Final = b""  # compared with when there is no such client, so that both take as long
_DONE: Final = Reply(200, "accepted")
_NOTHING_TO_DO: Final = Reply(200, "ignored")


class _Refusal(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


def _refused(error: str, text: str, status: int = 400, *headers: tuple[bytes, bytes]) -> _Refusal:
    return _Refusal(Reply(status, "refused", {"error": error, "error_description": text}, headers))


def _later(text: str) -> Reply:
    # RFC 7009 §2.2.1: "the client must assume the token still exists and may retry after a reasonable delay".
    return Reply(503, "failed", {"error": "temporarily_unavailable", "error_description": text})


class RevocationEndpoint:
    """`POST …/revoke` of one issuer."""

    source: Source = "revocation_endpoint"

    def __init__(
        self,
        issuer: str,
        clients: Mapping[str, RevocationClient],
        leeway_s: float,
        verifier: Verifier,
        intake: Intake,
    ) -> None:
        """`issuer` is the name in the YAML; `leeway_s` is how long after `exp` its tokens are still accepted."""
        self.name = f"{issuer}/revoke"
        self._issuer = issuer
        self._clients = clients
        self._leeway_s = leeway_s
        self._verifier = verifier
        self._intake = intake

    async def answer(self, message: Message) -> Reply:
        """200 once the token is denied or was of no worth anyway; else an error of RFC 6749 §5.2 or RFC 7009 §2.2.1."""
        try:
            try:
                form = read_form(message)
            except ValueError as exc:
                raise _refused("invalid_request", str(exc)) from None
            client_id = self._authenticate(message, form)
            return await self._revoke(_token(form), client_id, message.now)
        except _Refusal as refusal:
            return refusal.reply

    async def _revoke(self, raw: bytes, client_id: str, now: float) -> Reply:
        try:
            token = await self._verifier.verify(raw, now)
        except (TokenInvalid, TokenExpired):
            return _NOTHING_TO_DO
        except KeysUnavailable:
            return _later("the issuer's keys are not available")
        if token.issuer != self._issuer:
            return _NOTHING_TO_DO
        if self._clients[client_id].tokens == "own" and token.client_id != client_id:
            # RFC 7009 §2.1: "verifies whether the token was issued to the client making the revocation request".
            raise _refused("invalid_grant", "the token was not issued to this client")
        return await self._deny(token, client_id, now)

    async def _deny(self, token: Token, client_id: str, now: float) -> Reply:
        if token.token_id is None:
            raise _refused("unsupported_token_type", "a token without jti cannot be revoked by itself")
        ttl_s = max(token.expires_at + self._leeway_s - now, 1.0)
        try:
            entry = make_entry("token", self._issuer, token.token_id, now=now, ttl_s=ttl_s)
        except ValueError as exc:
            raise _refused("unsupported_token_type", f"the token's jti cannot be denied: {exc}") from None
        try:
            await self._intake.put([entry], Word(self.source, f"client {client_id}", "token handed in"))
        except StoreError as fault:
            return _later(str(fault))
        return _DONE

    def _authenticate(self, message: Message, form: Mapping[str, str]) -> str:
        """The id of the client, proved."""
        given = message.header(b"authorization")
        if given is None:
            client_id, password = form.get("client_id", ""), form.get("client_secret", "")
        elif "client_secret" in form:
            # RFC 6749 §2.3: "The client MUST NOT use more than one authentication method in each request."
            raise _refused("invalid_request", "the client authenticates twice")
        else:
            client_id, password = _basic(given)
            if form.get("client_id", client_id) != client_id:
                raise _refused("invalid_request", "the form names another client")
        client = self._clients.get(client_id)
        secret = _NOBODY if client is None else client.secret.get_secret_value()
        if not is_same_secret(secret, password.encode()) or client is None:
            challenge = (b"www-authenticate", b'Basic realm="revocation", charset="UTF-8"')
            raise _refused("invalid_client", "the client is not known, or its secret is wrong", 401, challenge)
        return client_id


def _token(form: Mapping[str, str]) -> bytes:
    token = form.get("token")
    if token is None:
        raise _refused("invalid_request", "token is missing")
    if token.count(".") != 2 or not token.isascii():
        # An opaque one, most likely a refresh token: who is told 200 would believe it revoked.
        raise _refused("unsupported_token_type", "only access tokens in the form of a JWT can be revoked here")
    return token.encode()


def _basic(value: bytes) -> tuple[str, str]:
    """Id and password of a Basic credential, each form-encoded before (RFC 6749 §2.3.1); ("", "") if it is none."""
    scheme, _, text = value.partition(b" ")
    if scheme.lower() != b"basic":
        return "", ""
    try:
        client_id, _, password = b64decode(text.strip(), validate=True).decode().partition(":")
        return unquote_plus(client_id, errors="strict"), unquote_plus(password, errors="strict")
    except (Base64Error, ValueError):
        return "", ""
