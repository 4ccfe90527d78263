"""JSON for the operator's own apps: register, log in, refresh, log out, devices, passwords, and the re-sync call."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import TokenInvalid
from gateway.issuer.accounts import read_registration
from gateway.issuer.browser import CAME_IN_COOKIES, Browsers
from gateway.issuer.endpoints.answers import json_answer, nothing
from gateway.issuer.endpoints.callers import find_caller
from gateway.issuer.endpoints.reading import bearer, optional_text, read_json, text
from gateway.issuer.grants import SessionOver, Tokens
from gateway.issuer.refresh_tokens import Verdict
from gateway.issuer.refusals import CrossSite, InvalidRequest, NotFound, SessionEnded
from gateway.issuer.service import Issuer
from gateway.issuer.sessions import PLATFORMS, Device, Session

_LONGEST_NAME = 128  # of a device
_LONGEST_PASSWORD = 1024  # as sent; what may be used is shorter


class FirstParty:
    """The endpoints; state is the issuer's."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._browsers = None if issuer.config.web is None else Browsers(issuer)

    def routes(self, path: str) -> list[Route]:
        """Every endpoint, below `path`."""
        table = [
            ("POST", "register", self.register),
            ("POST", "verify", self.verify),
            ("POST", "login", self.login),
            ("POST", "refresh", self.refresh),
            ("POST", "logout", self.logout),
            ("POST", "logout-all", self.logout_all),
            ("GET", "session", self.session),
            ("GET", "sessions", self.sessions),
            ("DELETE", "sessions/{id}", self.end_session),
            ("POST", "password", self.password),
            ("POST", "password/forgot", self.forgot_password),
            ("POST", "password/reset", self.reset_password),
            ("GET", "me", self.me),
            ("GET", "me/export", self.export),
            ("POST", "me/delete", self.delete),
        ]
        return [Route(f"{path}/{name}", endpoint, methods=[method]) for method, name, endpoint in table]

    # --- in and out --------------------------------------------------------------------------------------------------

    async def register(self, request: Request) -> Response:
        """201 with tokens where registration is open; 202 where the address must be confirmed first."""
        members = await read_json(request)
        device = read_device(request, members)
        wants_cookies = self._wants_cookies(request, members)
        asked = read_registration(
            optional_text(members, "username"),
            optional_text(members, "email"),
            text(members, "password", longest=_LONGEST_PASSWORD),
        )
        user = await self._issuer.registrations.register(asked, address_of(request))
        if user is None:
            return json_answer({"status": "confirmation_sent"}, 202)
        return self._begun(await self._issuer.grants.begin(user, device), wants_cookies, 201)

    async def verify(self, request: Request) -> Response:
        """Confirms a registration with the token that was sent; then the user logs in."""
        members = await read_json(request)
        user = await self._issuer.registrations.confirm(text(members, "token"))
        return json_answer({"status": "confirmed", "id": user.id})

    async def login(self, request: Request) -> Response:
        """Tokens for a name and a password."""
        members = await read_json(request)
        device = read_device(request, members)
        wants_cookies = self._wants_cookies(request, members)
        names = [name for name in ("username", "email") if members.get(name) is not None]
        if len(names) != 1:
            raise InvalidRequest("Give a username or an email.")
        user = await self._issuer.log_ins.log_in(
            text(members, names[0]), text(members, "password", longest=_LONGEST_PASSWORD), device.address
        )
        return self._begun(await self._issuer.grants.begin(user, device), wants_cookies)

    def _wants_cookies(self, request: Request, members: dict[str, Any]) -> bool:
        wanted = members.get("cookies", False)
        if not isinstance(wanted, bool) or (wanted and self._browsers is None):
            raise InvalidRequest("`cookies` is true or false, and true only where the issuer has `web`.")
        if wanted and self._browsers is not None and not self._browsers.is_from_our_pages(request.scope["headers"]):
            raise CrossSite  # another site's page must not sign its visitor in as somebody else (login CSRF)
        return wanted

    def _begun(self, tokens: Tokens, wants_cookies: bool, status: int = 200) -> Response:
        """The tokens in the body, or in cookies and nowhere else."""
        if not wants_cookies or self._browsers is None:
            return json_answer(tokens.answer, status)
        hidden = ("access_token", "refresh_token", "token_type")
        answer = json_answer({name: value for name, value in tokens.answer.items() if name not in hidden}, status)
        return _with_cookies(answer, self._browsers.cookies(tokens))

    async def refresh(self, request: Request) -> Response:
        """Tokens for a refresh token; 401 `session_ended` means signing in again."""
        members = await read_json(request)
        token = text(members, "refresh_token")
        try:
            tokens = await self._issuer.grants.refresh(token, self._issuer.config.client_id, address_of(request))
        except SessionOver as over:
            raise SessionEnded(over.detail) from over
        return json_answer(tokens.answer)

    async def logout(self, request: Request) -> Response:
        """Ends the session of whatever token the client still has, also an expired one, and as often as it asks."""
        members = await read_json(request, optional=True)
        given = optional_text(members, "refresh_token")
        if given is not None:
            refresh = self._issuer.sessions.recognise(given)
            sid = "" if refresh is None else refresh.session_id
        else:
            access = self._issuer.access_tokens.read(bearer(request))
            sid = "" if access is None else access.sid
        if not sid:
            raise TokenInvalid
        await self._issuer.sessions.end(sid, "logged out")
        return self._signed_out(request, nothing())

    async def logout_all(self, request: Request) -> Response:
        """Ends every session of the user; with `keep_current` every other one."""
        caller = await find_caller(self._issuer, request, manages_account=True)
        members = await read_json(request, optional=True)
        keep = members.get("keep_current", False)
        if not isinstance(keep, bool):
            raise InvalidRequest("`keep_current` is not true or false.")
        count = await self._issuer.sessions.end_all(
            caller.user.id, "logged out everywhere", but=caller.session.id if keep else None
        )
        answer = json_answer({"ended": count})
        return answer if keep else self._signed_out(request, answer)

    def _signed_out(self, request: Request, answer: Response) -> Response:
        if self._browsers is None or CAME_IN_COOKIES not in request.scope:
            return answer
        return _with_cookies(answer, self._browsers.cleared())

    # --- devices -----------------------------------------------------------------------------------------------------

    async def sessions(self, request: Request) -> Response:
        """The user's devices, the one seen last first."""
        caller = await find_caller(self._issuer, request, manages_account=True)
        found = await self._issuer.sessions.of_user(caller.user.id)
        shown = [{**describe(session), "current": session.id == caller.session.id} for session in found]
        return json_answer({"sessions": shown})

    async def end_session(self, request: Request) -> Response:
        """Ends one of the user's sessions; 404 for somebody else's."""
        caller = await find_caller(self._issuer, request, manages_account=True)
        sid = request.path_params["id"]
        if not await self._issuer.sessions.end(sid, "ended by its user", user_id=caller.user.id):
            raise NotFound
        return nothing()

    async def session(self, request: Request) -> Response:
        """The re-sync call: what the client's token is worth, what to do, until when, and what time it is."""
        token = bearer(request)
        now = self._issuer.wall()
        answer = await self._of_access_token(token, now) or await self._of_refresh_token(token)
        answer = answer or {"token": "unknown", "action": "sign_in", "until": None, "session_id": None}
        return json_answer({"server_time": now, **answer})

    async def _of_access_token(self, text_: str, now: float) -> dict[str, Any] | None:
        token = self._issuer.access_tokens.read(text_)
        if token is None:
            return None
        session = await self._issuer.sessions.find(token.sid) if token.sid else None
        is_over = bool(token.sid) and (session is None or session.ended_at is not None)
        if is_over or (session is not None and now >= session.expires_at and now >= token.expires_at):
            return _state("revoked" if is_over else "expired", "sign_in", None, token.sid)
        if now < token.expires_at:
            return _state("valid", "continue", token.expires_at, token.sid)
        until = session.expires_at if session is not None else None
        return _state("expired", "refresh" if session is not None else "sign_in", until, token.sid)

    async def _of_refresh_token(self, text_: str) -> dict[str, Any] | None:
        token = self._issuer.sessions.recognise(text_)
        found = None if token is None else await self._issuer.sessions.peek(token)
        if token is None or found is None:
            return None
        verdict, session = found
        if verdict.is_served:
            return _state("valid", "refresh", session.expires_at, session.id)
        return _state("expired" if verdict is Verdict.EXPIRED else "revoked", "sign_in", None, session.id)

    # --- the account -------------------------------------------------------------------------------------------------

    async def password(self, request: Request) -> Response:
        """A new password for whoever knows the present one; the other sessions end."""
        caller = await find_caller(self._issuer, request, manages_account=True)
        members = await read_json(request)
        await self._issuer.password_changes.change(
            caller.user.id,
            caller.session.id,
            text(members, "password", longest=_LONGEST_PASSWORD),
            text(members, "new_password", longest=_LONGEST_PASSWORD),
            address_of(request),
        )
        return nothing()

    async def forgot_password(self, request: Request) -> Response:
        """202, whether or not there is such an account: the rest is in the message."""
        members = await read_json(request)
        name = optional_text(members, "email") or text(members, "username")
        await self._issuer.password_changes.forgot(name, address_of(request))
        return json_answer({"status": "sent_if_known"}, 202)

    async def reset_password(self, request: Request) -> Response:
        """A new password for whoever got the token; every session ends."""
        members = await read_json(request)
        await self._issuer.password_changes.reset(
            text(members, "token"), text(members, "new_password", longest=_LONGEST_PASSWORD), address_of(request)
        )
        return nothing()

    async def me(self, request: Request) -> Response:
        """The account as the user sees it."""
        return json_answer((await find_caller(self._issuer, request)).user.public)

    async def export(self, request: Request) -> Response:
        """Everything that is kept about the user."""
        caller = await find_caller(self._issuer, request, manages_account=True)
        return json_answer(await self._issuer.accounts.export(caller.user.id))

    async def delete(self, request: Request) -> Response:
        """Removes the account of a user who gives the password once more."""
        caller = await find_caller(self._issuer, request, manages_account=True)
        members = await read_json(request)
        name = caller.user.email or caller.user.username or ""
        password = text(members, "password", longest=_LONGEST_PASSWORD)
        await self._issuer.log_ins.log_in(name, password, address_of(request))
        await self._issuer.accounts.delete(caller.user.id)
        return nothing()


def address_of(request: Request) -> str:
    """The caller's address, trusted proxies believed."""
    return request.client.host if request.client is not None else "unknown"


def read_device(request: Request, members: dict[str, Any]) -> Device:
    """What the client says of its device."""
    platform = optional_text(members, "platform") or "other"
    if platform not in PLATFORMS:
        raise InvalidRequest(f"`platform` is one of {', '.join(PLATFORMS)}.")
    name = optional_text(members, "device_name", longest=_LONGEST_NAME) or ""
    if not name.isprintable():
        raise InvalidRequest("`device_name` holds a control character.")
    return Device(next(known for known in PLATFORMS if known == platform), name, address_of(request))


def describe(session: Session) -> dict[str, Any]:
    """A session as its user sees it."""
    return {
        "id": session.id,
        "client_id": session.client_id,
        "platform": session.platform,
        "device_name": session.device_name,
        "address": session.address,
        "created_at": session.created_at,
        "last_seen_at": session.last_seen_at,
        "expires_at": session.expires_at,
    }


def _with_cookies(answer: Response, cookies: list[str]) -> Response:
    for value in cookies:
        answer.headers.append("set-cookie", value)
    return answer


def _state(token: str, action: str, until: float | None, sid: str) -> dict[str, Any]:
    return {"token": token, "action": action, "until": until, "session_id": sid or None}
