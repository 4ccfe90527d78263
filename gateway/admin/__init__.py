"""The admin listener's application: health, metrics and the denylist's API, on an address that clients do not reach.

An ASGI app of its own. It is handed what it shows and imports nothing that handles requests.
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from gateway.admin.api import create_admin
from gateway.admin.revocations import DenylistApi

__all__ = ["BaseRoute", "DenylistApi", "create_admin"]
