"""A real browser for tests: headless Chromium, driven over its DevTools pipe.

    async with Browser() as browser:
        await browser.goto("https://127.0.0.1:8443/")
        await browser.fill("#name", "alice")
        await browser.click("#sign-in button")
        await browser.wait_for("document.title === 'Orders'")

One page at a time, and the service workers that it starts. The pipe needs no port and no driver, and Chromium
ends by itself when the test process does. Certificates are not verified, so that a test's own one will do.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DEADLINE_S = 20.0
WORKER_S = 2.0  # for a service worker to answer, which Chromium puts to sleep as it likes

_OPTIONS = (
    "--headless",
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers give it 64 MiB
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--metrics-recording-only",
    "--password-store=basic",
    "--no-proxy-server",
    "--ignore-certificate-errors",
    "--remote-debugging-pipe",
)
_WATCHED = ("page", "service_worker")


class BrowserError(Exception):
    """Chromium refused a command, or a script in the page threw."""


def find_chromium() -> str | None:
    """The browser's path; None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@functools.cache
def why_not() -> str | None:
    """Why no browser can be started here; None if one can."""
    path = find_chromium()
    if path is None:
        return "no Chromium on the PATH (`tools/prepare browser` installs it, or says how)"
    # Where the name is only a signpost to another way of installing it, it says so and fails.
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return f"{path} does not start"
    return None if done.returncode == 0 else f"{path} does not start"


class Browser:
    """One Chromium with a fresh profile; its methods act on its page. `renew` is quicker than another one."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._targets: dict[str, str] = {}  # session of DevTools → kind of target
        self._page = ""  # its session
        self._context = ""  # the profile that the page is in
        self._is_offline = False
        self._losing = ""
        self.lost = 0  # answers, since `lose_answers`
        self._loads: set[str] = set()  # the documents that have loaded, by the browser's id of the navigation
        self._loaded = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self.messages: list[str] = []  # what pages and workers wrote to the console, and what they threw

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- the process -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it with an empty page."""
        path = find_chromium()
        assert path is not None, why_not()
        self._profile = tempfile.mkdtemp(prefix="gateway-browser-")
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()

        # Chromium reads commands from descriptor 3 and writes to 4. A shell puts them there: done between fork and
        # exec, in a process with threads, it might never come to the exec.
        shift = f'exec 3<&{read_in} 4>&{write_out} {read_in}<&- {write_out}>&-; exec "$@"'
        if {read_in, write_out} & {3, 4}:
            raise BrowserError("descriptors 3 and 4 are not free")
        self._process = subprocess.Popen(
            ["bash", "-c", shift, "chromium", path, *_OPTIONS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(read_in, write_out),
            start_new_session=True,  # its helpers end with it
        )
        os.close(read_in)
        os.close(write_out)
        self._write_fd = write_in
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=2**26)
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_out, "rb", buffering=0)
        )
        self._reading = asyncio.create_task(self._read(reader))
        async with asyncio.timeout(DEADLINE_S):
            await self._call("Target.setDiscoverTargets", {"discover": True})
            await self.renew()

    async def renew(self) -> None:
        """An empty page in an empty profile, online; the one before is gone with all that it kept."""
        if self._context:
            await self._call("Target.disposeBrowserContext", {"browserContextId": self._context})
        self._is_offline = False
        self._losing = ""
        self.lost = 0
        self.messages.clear()
        self._context = (await self._call("Target.createBrowserContext"))["browserContextId"]
        place = {"url": "about:blank", "browserContextId": self._context}
        self._page = await self._attach((await self._call("Target.createTarget", place))["targetId"])
        await self._call("Page.enable", session=self._page)
        await self._call("Page.setLifecycleEventsEnabled", {"enabled": True}, self._page)

    async def stop(self) -> None:
        """End it and remove its profile."""
        if self._process is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await self._call("Browser.close")
        self._reading.cancel()
        for task in self._tasks:
            task.cancel()
        self._transport.close()
        os.close(self._write_fd)
        try:
            await asyncio.to_thread(self._process.wait, 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._process = None
        await asyncio.to_thread(shutil.rmtree, self._profile, ignore_errors=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = json.loads((await reader.readuntil(b"\0"))[:-1])
                if "id" in message:
                    answer = self._answers.pop(message["id"], None)
                    if answer is not None and not answer.done():
                        answer.set_result(message)
                else:
                    self._notice(message["method"], message["params"], message.get("sessionId", ""))
        except (asyncio.IncompleteReadError, ConnectionError):
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(BrowserError("Chromium has ended"))

    async def _call(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params or {}} | ({"sessionId": session} if session else {})
        self._answers[number] = asyncio.get_running_loop().create_future()
        encoded = json.dumps(message).encode() + b"\0"
        while encoded:  # a pipe takes 64 KiB at a time; Chromium reads on a thread of its own
            encoded = encoded[os.write(self._write_fd, encoded) :]
        async with asyncio.timeout(DEADLINE_S):
            answer = await self._answers[number]
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _notice(self, method: str, params: dict[str, Any], session: str) -> None:
        if method == "Target.attachedToTarget":
            self._targets[params["sessionId"]] = params["targetInfo"]["type"]
            self._spawn(self._greet(params["sessionId"], params["targetInfo"]["type"]))
        elif method == "Target.detachedFromTarget":
            self._targets.pop(params["sessionId"], None)
        elif method == "Target.targetCreated" and params["targetInfo"]["type"] == "service_worker":
            self._spawn(self._attach(params["targetInfo"]["targetId"]))
        elif method == "Page.lifecycleEvent" and params["name"] == "load" and session == self._page:
            self._loads.add(params["loaderId"])
            self._loaded.set()
        elif method == "Fetch.requestPaused":
            self._spawn(self._lose(params["requestId"], session))
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(value.get("value")) for value in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(_thrown(params["exceptionDetails"]))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, BrowserError):
            self.messages.append(repr(error))  # a worker that ended meanwhile is no error

    async def _attach(self, target: str) -> str:
        """Its session."""
        return str((await self._call("Target.attachToTarget", {"targetId": target, "flatten": True}))["sessionId"])

    async def _greet(self, session: str, kind: str) -> None:
        if kind not in _WATCHED:
            return
        await self._call("Runtime.enable", session=session)
        await self._call("Network.enable", session=session)
        if self._is_offline:
            await self._emulate(session)
        if self._losing:
            await self._intercept(session)

    # --- the page ----------------------------------------------------------------------------------------------------

    async def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded. BrowserError if it cannot be opened."""
        answer = await self._call("Page.navigate", {"url": url}, self._page)
        if answer.get("errorText"):
            raise BrowserError(f"{url}: {answer['errorText']}")
        # This document, not the one that a form has sent for before, whose end of loading may still come.
        await self._until_loaded(lambda: answer.get("loaderId") in {None, *self._loads})

    async def reload(self) -> None:
        """Open the present address again."""
        before = set(self._loads)
        await self._call("Page.reload", session=self._page)
        await self._until_loaded(lambda: self._loads > before)

    async def _until_loaded(self, is_loaded: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_loaded():
                self._loaded.clear()
                await self._loaded.wait()

    async def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise; JSON's types only. BrowserError if it throws."""
        params = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = await self._call("Runtime.evaluate", params, self._page)
        if "exceptionDetails" in answer:
            raise BrowserError(_thrown(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def wait_for(self, script: str, *, deadline_s: float = DEADLINE_S) -> Any:
        """The first true value of an expression. TimeoutError with the page's text if there is none in time."""
        value = None
        try:
            async with asyncio.timeout(deadline_s):
                while not value:
                    with contextlib.suppress(BrowserError):  # the page is being replaced
                        value = await self.evaluate(script)
                    if not value:
                        await asyncio.sleep(0.02)  # another process: nothing to wait on
        except TimeoutError:
            text = await self.evaluate("document.body.innerText")
            raise TimeoutError(f"never true: {script}\n{text}\nconsole: {self.messages}") from None
        return value

    async def text(self, selector: str) -> str:
        """What an element shows; "" if there is none."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def fill(self, selector: str, value: str) -> None:
        """Type into a field, after what is in it was removed."""
        await self._focus(selector)
        await self.evaluate("document.activeElement.select?.()")
        await self._call("Input.insertText", {"text": value}, self._page)

    async def click(self, selector: str) -> None:
        """Press the mouse button on the middle of an element."""
        await self._focus(selector, scroll_only=True)
        box = await self.evaluate(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            params = {"type": kind, "x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            await self._call("Input.dispatchMouseEvent", params, self._page)

    async def _focus(self, selector: str, *, scroll_only: bool = False) -> None:
        """TimeoutError unless the element is shown in time."""
        quoted = json.dumps(selector)
        await self.wait_for(f"document.querySelector({quoted})?.checkVisibility()")
        act = "scrollIntoView({block: 'center'})" if scroll_only else "focus()"
        await self.evaluate(f"document.querySelector({quoted}).{act}")

    # --- what is around it -------------------------------------------------------------------------------------------

    async def cookies(self) -> dict[str, dict[str, Any]]:
        """Every cookie of the profile by name, also those that no script can read, with their attributes."""
        found = (await self._call("Storage.getCookies", {"browserContextId": self._context}))["cookies"]
        return {cookie["name"]: cookie for cookie in found}

    async def delete_cookie(self, name: str) -> None:
        """Remove a cookie, as happens when its time has come."""
        cookie = (await self.cookies())[name]
        params = {"name": name, "domain": cookie["domain"], "path": cookie["path"]}
        await self._call("Network.deleteCookies", params, self._page)

    async def set_offline(self, offline: bool) -> None:
        """Cut page and workers, those to come too, off the network, or connect them again."""
        self._is_offline = offline
        for session, kind in list(self._targets.items()):
            if kind in _WATCHED:
                await self._tell(kind, self._emulate(session))

    async def _tell(self, kind: str, command: Coroutine[Any, Any, None]) -> None:
        """Have a command carried out; a worker that sleeps answers when it wakes, one that has just ended never."""
        with contextlib.suppress(BrowserError):
            if kind != "service_worker":
                await command
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WORKER_S):
                    await command

    async def _emulate(self, session: str) -> None:
        conditions = {"offline": self._is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self._call("Network.emulateNetworkConditions", conditions, session)

    async def lose_answers(self, pattern: str) -> None:
        """Let requests whose address matches (`*` for anything) be carried out, but cut their answers; "": no more."""
        self._losing = pattern
        for session, kind in list(self._targets.items()):
            if kind in _WATCHED:
                await self._tell(kind, self._intercept(session))

    async def _intercept(self, session: str) -> None:
        if self._losing:
            patterns = [{"urlPattern": self._losing, "requestStage": "Response"}]
            await self._call("Fetch.enable", {"patterns": patterns}, session)
        else:
            await self._call("Fetch.disable", session=session)

    async def _lose(self, request: str, session: str) -> None:
        self.lost += 1
        await self._call("Fetch.failRequest", {"requestId": request, "errorReason": "ConnectionClosed"}, session)


def _thrown(details: dict[str, Any]) -> str:
    exception = details.get("exception", {})
    return str(exception.get("description") or exception.get("value") or details.get("text"))
