"""A desktop client that works offline: it signs in with the system's browser and keeps its tokens and its queue.

    python desktop.py --gateway https://api.example sign-in
    python desktop.py --gateway https://api.example order "a pound of tea"
    python desktop.py --gateway https://api.example sync

Needs `httpx2`; keeps the tokens in the system's keyring where `keyring` is installed, else in a file that only its user
can read. The operator lists the client once:

    issuer:
      clients:
        desktop: {redirect_uris: ["http://127.0.0.1/callback"], scopes: [openid]}
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
import uuid
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2

CLIENT_ID = "desktop"
REFRESH_AHEAD_S = 30.0
SIGN_IN_S = 300.0  # how long the browser may take
REPEATS_S = (0.0, 0.5, 1.0, 2.0)  # pauses before each attempt of a refresh


# --- what can go wrong, by what to do --------------------------------------------------------------------------------


class SignInNeeded(Exception):
    """The session is over. The queue is kept for whoever it belongs to."""


class TryLater(Exception):
    """Nothing is wrong with us; `after_s` if the gateway said when."""

    def __init__(self, after_s: float | None = None) -> None:
        super().__init__("try later")
        self.after_s = after_s


class Refused(Exception):
    """The request will never succeed as it is; the text says why."""


_SIGN_IN = frozenset({"token_missing", "token_invalid", "token_revoked", "session_ended"})


def code_of(answer: httpx2.Response) -> str:
    """The gateway's code; "" for an answer of whatever stands behind it, which may say 401 too."""
    try:
        problem = answer.json()
    except ValueError:
        return ""
    is_ours = isinstance(problem, dict) and str(problem.get("type")).startswith("urn:gateway:error:")
    return str(problem["code"]) if is_ours else ""


def judge(answer: httpx2.Response) -> httpx2.Response:
    """The answer if it is a success. SignInNeeded, TryLater, Refused."""
    code = code_of(answer)
    if answer.is_success:
        return answer
    if code in _SIGN_IN:
        raise SignInNeeded
    if answer.status_code >= 500 or answer.status_code in (408, 429) or code == "idempotency_key_in_use":
        after = answer.headers.get("retry-after", "")
        raise TryLater(float(after) if after.isdigit() else None)
    raise Refused(f"{answer.status_code} {code}".strip())


# --- what is kept ----------------------------------------------------------------------------------------------------


class TokenStore(Protocol):
    """Keeps one JSON object safe from other users of the machine."""

    def load(self) -> dict[str, Any]:
        """What was saved last; empty at first."""

    def save(self, kept: dict[str, Any]) -> None:
        """Keep this instead; safe before this returns."""


class FileStore:
    """A file that only its user can read, replaced in one step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Any]:
        """What was saved last; empty at first."""
        try:
            kept: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return kept

    def save(self, kept: dict[str, Any]) -> None:
        """Keep this instead."""
        part = self._path.with_suffix(".part")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)


class KeyringStore:
    """The system's keyring."""

    def __init__(self, service: str) -> None:
        import keyring  # not everybody has it

        self._keyring: Any = keyring
        self._service = service

    def load(self) -> dict[str, Any]:
        """What was saved last; empty at first."""
        kept: dict[str, Any] = json.loads(self._keyring.get_password(self._service, CLIENT_ID) or "{}")
        return kept

    def save(self, kept: dict[str, Any]) -> None:
        """Keep this instead."""
        self._keyring.set_password(self._service, CLIENT_ID, json.dumps(kept))


def token_store(folder: Path, gateway: str) -> TokenStore:
    """The keyring if there is one, else a file in `folder`."""
    try:
        return KeyringStore(gateway)
    except ImportError:
        return FileStore(folder / "tokens.json")


@dataclass(frozen=True, slots=True)
class Write:
    """One request that waits. The key was made with it and stays the same however often it is sent."""

    number: int
    key: str
    path: str
    body: dict[str, Any]


class Queue:
    """Writes that wait, in a SQLite file, each with the user who made it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")  # what the user was told is kept survives a power cut
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS writes"
            " (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, user TEXT, path TEXT, body TEXT, refused TEXT)"
        )

    def _execute(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._database.execute(sql, values).fetchall()

    def add(self, user: str, path: str, body: dict[str, Any]) -> None:
        """Keep a write."""
        sql = "INSERT INTO writes (key, user, path, body) VALUES (?, ?, ?, ?)"
        self._execute(sql, str(uuid.uuid4()), user, path, json.dumps(body))

    def waiting(self, user: str) -> list[Write]:
        """What this user wrote and nobody has refused, oldest first."""
        sql = "SELECT number, key, path, body FROM writes WHERE user = ? AND refused IS NULL ORDER BY number"
        return [Write(number, key, path, json.loads(body)) for number, key, path, body in self._execute(sql, user)]

    def refused(self, user: str) -> list[tuple[str, str]]:
        """What will never be sent, for its user to see: the body and why."""
        sql = "SELECT body, refused FROM writes WHERE user = ? AND refused IS NOT NULL ORDER BY number"
        return [(body, why) for body, why in self._execute(sql, user)]

    def refuse(self, number: int, why: str) -> None:
        """Send it no more, and say why."""
        self._execute("UPDATE writes SET refused = ? WHERE number = ?", why, number)

    def remove(self, number: int) -> None:
        """It is done."""
        self._execute("DELETE FROM writes WHERE number = ?", number)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


# --- the client ------------------------------------------------------------------------------------------------------


class Desktop:
    """The client; may be used by several threads.

    Kept in the store: `user`, `access_token`, `expires_at` by the gateway's clock, `refresh_token`; and `leaving`, the
    refresh tokens of sessions that were signed out here and that the gateway has yet to hear of.
    """

    def __init__(
        self,
        http: httpx2.Client,
        tokens: TokenStore,
        queue: Queue,
        open_browser: Callable[[str], object] = webbrowser.open,
    ) -> None:
        """`http` has the gateway's address as its `base_url`, and deadlines."""
        self.queue = queue
        self._http = http
        self._tokens = tokens
        self._open_browser = open_browser
        self._lock = threading.RLock()  # of the tokens: who holds it reads them, changes them, or refreshes
        self._flushing = threading.Lock()
        self._ahead_s = 0.0  # the gateway's clock minus ours

    def _exchange(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """One request. TryLater without an answer: it may have been done or not."""
        try:
            answer = self._http.request(method, path, **more)
        except httpx2.TransportError as exc:
            raise TryLater from exc
        if "date" in answer.headers:
            self._ahead_s = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
        return answer

    # --- tokens ------------------------------------------------------------------------------------------------------

    @property
    def user(self) -> str:
        """The id of whoever is signed in. SignInNeeded."""
        kept = self._tokens.load()
        if "refresh_token" not in kept:
            raise SignInNeeded
        return str(kept["user"])

    def sign_in(self) -> None:
        """Let the user sign in in the system's browser (RFC 8252). TryLater, SignInNeeded."""
        verifier, state, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        with Callback() as callback:
            asked = {
                "response_type": "code",
                "client_id": CLIENT_ID,
                "redirect_uri": callback.uri,
                "scope": "openid",
                "state": state,
                "nonce": nonce,
                "code_challenge": _base64url(hashlib.sha256(verifier.encode()).digest()),
                "code_challenge_method": "S256",
            }
            self._open_browser(f"{self._issuer}/authorize?{urlencode(asked)}")
            back = callback.wait(state)
        if back.get("iss") != self._issuer or "code" not in back:
            raise SignInNeeded(back.get("error", "the browser came back from somebody else"))
        grant = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": callback.uri}
        device = {"platform": "desktop", "device_name": os.uname().nodename if hasattr(os, "uname") else "Desktop"}
        given = self._ask_for_tokens({**grant, **device, "code_verifier": verifier})
        with self._lock:
            kept = self._tokens.load()
            if "refresh_token" in kept:  # the session before this one
                kept.setdefault("leaving", []).append(kept["refresh_token"])
            self._tokens.save({**kept, **given, "user": self._user_of(given["id_token"], nonce)})

    @property
    def _issuer(self) -> str:
        return str(self._http.base_url).rstrip("/") + "/auth"

    def _user_of(self, id_token: str, nonce: str) -> str:
        # It comes straight from the issuer, so its signature would prove nothing more (OpenID Connect Core §3.1.3.7).
        payload = id_token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if (claims["iss"], claims["aud"], claims.get("nonce")) != (self._issuer, CLIENT_ID, nonce):
            raise SignInNeeded("the ID token is for somebody else")
        return str(claims["sub"])

    def _ask_for_tokens(self, form: dict[str, str]) -> dict[str, Any]:
        answer = self._exchange("POST", "/auth/token", data={**form, "client_id": CLIENT_ID})
        if answer.status_code == 400 and answer.json().get("error") == "invalid_grant":
            raise SignInNeeded
        given: dict[str, Any] = judge(answer).json()
        return {**given, "expires_at": time.time() + self._ahead_s + given["expires_in"]}

    def refresh(self, used: str) -> str:
        """A newer access token than `used`. Threads that come together make one refresh. SignInNeeded, TryLater."""
        with self._lock:
            kept = self._tokens.load()
            if "refresh_token" not in kept:
                raise SignInNeeded
            if kept["access_token"] != used:
                return str(kept["access_token"])
            form = {"grant_type": "refresh_token", "refresh_token": kept["refresh_token"]}
            try:
                given = self._repeat(form)
            except SignInNeeded:
                self._forget()
                raise
            # Not before the answer is here is the old token given up; not before the new one is kept is it used.
            self._tokens.save({**kept, **given})
            return str(given["access_token"])

    def _repeat(self, form: dict[str, str]) -> dict[str, Any]:
        """Ask until an answer comes: the same refresh token again gets the same successor."""
        later = TryLater()
        for pause_s in REPEATS_S:
            time.sleep(pause_s)
            try:
                return self._ask_for_tokens(form)
            except TryLater as exc:
                later = exc
                if exc.after_s is not None:
                    break  # an answer: it wants to be left alone
        raise later

    def _forget(self) -> None:
        with self._lock:
            self._tokens.save({"leaving": self._tokens.load().get("leaving", [])})

    def _access_token(self, user: str) -> str:
        """This user's, refreshed ahead of its end. Our clock decides only that; the gateway's answer decides."""
        with self._lock:
            if self.user != user:  # another one has signed in, perhaps in another window
                raise SignInNeeded
            kept = self._tokens.load()
            token = str(kept["access_token"])
            is_ending = time.time() + self._ahead_s > kept["expires_at"] - REFRESH_AHEAD_S
            return self.refresh(token) if is_ending else token

    def sign_out(self) -> None:
        """Forget the tokens at once; tell the gateway now or later. The queue waits for its user."""
        with self._lock:
            kept = self._tokens.load()
            ended = [kept["refresh_token"]] if "refresh_token" in kept else []
            self._tokens.save({"leaving": [*kept.get("leaving", []), *ended]})
        with contextlib.suppress(TryLater):
            self._tell_of_sign_outs()

    def _tell_of_sign_outs(self) -> None:
        """Late or twice, it is all the same to the gateway (RFC 7009). TryLater."""
        with self._lock:
            for token in self._tokens.load().get("leaving", []):
                answer = self._exchange("POST", "/auth/revoke", data={"token": token, "client_id": CLIENT_ID})
                with contextlib.suppress(Refused, SignInNeeded):  # then there is nothing left to end
                    judge(answer)
                kept = self._tokens.load()
                self._tokens.save({**kept, "leaving": [other for other in kept["leaving"] if other != token]})

    # --- requests ----------------------------------------------------------------------------------------------------

    def send(self, method: str, path: str, user: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
        """A request as this user: the answer. SignInNeeded, TryLater, Refused."""
        token = self._access_token(user)
        for is_last in (False, True):
            fields = {**(headers or {}), "authorization": f"Bearer {token}"}
            answer = self._exchange(method, path, headers=fields, **more)
            if code_of(answer) != "token_expired":
                break
            if is_last:
                raise TryLater  # a token that is expired when it comes: the clocks over there disagree
            token = self.refresh(token)
        try:
            return judge(answer)
        except SignInNeeded:
            with self._lock:
                if self._tokens.load().get("access_token") == token:
                    self._forget()
            raise

    def catch_up(self) -> int:
        """To be called at the start and whenever there may be a network again; how many writes were sent.

        SignInNeeded, TryLater: what was not sent stays.
        """
        self._tell_of_sign_outs()
        user = self.user
        with self._lock:
            kept = self._tokens.load()
            bearer = {"authorization": f"Bearer {kept['access_token']}"}
            worth = judge(self._exchange("GET", "/auth/session", headers=bearer)).json()
            if worth["action"] == "sign_in":
                self._forget()
                raise SignInNeeded
            if worth["action"] == "refresh":
                self.refresh(kept["access_token"])
        return self.flush(user)

    def write(self, path: str, body: dict[str, Any]) -> None:
        """Keep a write for the user who is signed in; `flush` or `catch_up` sends it. SignInNeeded."""
        self.queue.add(self.user, path, body)

    def flush(self, user: str) -> int:
        """Send what this user wrote, oldest first; how many. SignInNeeded, TryLater: the rest stays."""
        sent = 0
        with self._flushing:
            for write in self.queue.waiting(user):
                try:
                    self.send("POST", write.path, user, {"idempotency-key": write.key}, json=write.body)
                except Refused as refused:
                    self.queue.refuse(write.number, str(refused))
                else:
                    self.queue.remove(write.number)
                    sent += 1
        return sent


class Callback:
    """Where the browser comes back to: a port of 127.0.0.1 (RFC 8252 §7.3), for one answer."""

    def __enter__(self) -> Callback:
        callback = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parsed = urlsplit(self.path)
                fields = {name: values[0] for name, values in parse_qs(parsed.query).items()}
                is_ours = parsed.path == "/callback" and secrets.compare_digest(fields.get("state", ""), callback.state)
                if is_ours:
                    callback.fields = fields
                body = b"You can close this window." if is_ours else b"Not here."
                self.send_response(200 if is_ours else 404)
                self.send_header("content-type", "text/plain")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of http.server
                """Say nothing: the address holds the code."""

        self.state = ""
        self.fields: dict[str, str] = {}
        self._server = HTTPServer(("127.0.0.1", 0), Answer)
        self.uri = f"http://127.0.0.1:{self._server.server_port}/callback"
        return self

    def wait(self, state: str) -> dict[str, str]:
        """The parameters that came with this `state`; whatever else comes is sent away. SignInNeeded after a while."""
        self.state = state
        until = time.monotonic() + SIGN_IN_S
        while not self.fields:
            self._server.timeout = until - time.monotonic()
            if self._server.timeout <= 0:
                raise SignInNeeded("the browser did not come back")
            self._server.handle_request()
        return self.fields

    def __exit__(self, *_: object) -> None:
        self._server.server_close()


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


# --- the command line ------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None, open_browser: Callable[[str], object] = webbrowser.open) -> int:
    """Run one command: 0 done, 1 kept for later, 3 sign in first."""
    parser = argparse.ArgumentParser(description="Order things, online or not.")
    parser.add_argument("--gateway", required=True, help="its origin")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".orders", help="where tokens and queue are kept")
    parser.add_argument("command", choices=["sign-in", "order", "sync", "sign-out"])
    parser.add_argument("what", nargs="?", default="")
    given = parser.parse_args(arguments)
    # One folder per gateway: no other one may get its tokens.
    folder = given.folder / urlsplit(given.gateway).netloc.replace(":", "_")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    queue = Queue(folder / "queue.db")
    with contextlib.closing(queue), httpx2.Client(base_url=given.gateway, timeout=10) as http:
        client = Desktop(http, token_store(folder, given.gateway), queue, open_browser)
        try:
            return _run(client, given.command, given.what)
        except SignInNeeded:
            print("Sign in first. What you wrote is kept.")
            return 3
        except TryLater:
            print("No connection. What you wrote is kept and sent later.")
            return 1


def _run(client: Desktop, command: str, what: str) -> int:
    if command == "sign-out":
        client.sign_out()
        return 0
    if command == "sign-in":
        client.sign_in()
    if command == "order":
        client.write("/api/orders", {"what": what})
    print(f"{client.catch_up()} sent.")
    for body, why in client.queue.refused(client.user):
        print(f"Refused: {body} ({why})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
