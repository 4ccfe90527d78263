"""The admin listener's application: health and metrics, on an address that clients do not reach.

An ASGI app of its own. It is handed what it shows and imports nothing that handles requests.
"""

from __future__ import annotations

from gateway.admin.api import create_admin

__all__ = ["create_admin"]
