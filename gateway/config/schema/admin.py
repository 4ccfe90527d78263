"""The `admin` section: the address of health, metrics and the admin API."""

from __future__ import annotations

from pydantic import Field

from gateway.config.values import Listen, Model, Password


class Admin(Model):
    """Health, metrics and the admin API, on an address of their own."""

    listen: Listen = Field(default="127.0.0.1:9901", description="`HOST:PORT`; never the clients' address.")
    secret: Password | None = Field(
        default=None,
        description="Bearer token for the denylist's API, 16 bytes or more: `${NAME}` or `{file: path}`. Left out: "
        "there is no such API, because entries name users.",
    )
