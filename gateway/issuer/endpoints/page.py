"""The log-in page: plain HTML that works without scripts, with a keyboard, a screen reader and a password manager."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from urllib.parse import urlsplit

_STYLE = """
:root{color-scheme:light dark}
body{font:1.125rem/1.5 system-ui,sans-serif;max-width:24rem;margin:4rem auto;padding:0 1rem}
h1{font-size:1.5rem}
label{display:block;margin-top:1rem}
input,button{font:inherit;box-sizing:border-box;width:100%;padding:.6rem;border:1px solid #767676;border-radius:.3rem}
button{margin-top:1.5rem;background:#0b57d0;color:#fff;border:0}
:focus-visible{outline:3px solid #0b57d0;outline-offset:2px}
[role=alert]{border-left:.3rem solid #b3261e;padding:.5rem 1rem}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{heading}</h1>
{content}</main>
</body>
</html>
"""
_FORM = """{alert}<form method="post" action="{action}">
<input type="hidden" name="request" value="{request}">
<label for="username">User name or e-mail address</label>
<input id="username" name="username" value="{username}" autocomplete="username" autocapitalize="none"
 spellcheck="false" required{focus_name}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required{focus_password}>
<button type="submit">Sign in</button>
</form>
"""


def log_in_page(*, client: str, action: str, request: str, username: str = "", alert: str = "") -> bytes:
    """The form. `request` is what it hands back unchanged; `alert` says why an attempt failed."""
    heading = f"Sign in to {client}"
    shown = f'<p role="alert" id="alert">{escape(alert)}</p>\n' if alert else ""
    focus = " autofocus"
    if alert:
        focus += ' aria-describedby="alert"'
    content = _FORM.format(
        alert=shown,
        action=escape(action),
        request=escape(request),
        username=escape(username),
        focus_name="" if username else focus,
        focus_password=focus if username else "",
    )
    title = f"Error: {heading}" if alert else heading  # read out first
    return _PAGE.format(title=escape(title), style=_STYLE, heading=escape(heading), content=content).encode()


def error_page(reason: str) -> bytes:
    """Why there is no form: a request that cannot be answered to the app it came from."""
    content = f"<p>{escape(reason)}</p>\n<p>Go back to the app and try again.</p>\n"
    return _PAGE.format(
        title="Sign-in is not possible", style=_STYLE, heading="Sign-in is not possible", content=content
    ).encode()


def page_headers(redirect_uri: str | None) -> dict[str, str]:
    """The fields of every page: nothing is loaded, framed, kept or leaked; the form may lead to the app only."""
    targets = ["'self'"]
    if redirect_uri is not None:
        parsed = urlsplit(redirect_uri)
        # Browsers apply `form-action` to the redirect that follows the form too.
        targets.append(f"{parsed.scheme}://{parsed.netloc}" if parsed.netloc else f"{parsed.scheme}:")
    policy = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {' '.join(targets)}"
    return {
        "content-security-policy": f"{policy}; frame-ancestors 'none'; base-uri 'none'",
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
