"""The upstreams behind every proxy: nginx with one fixed answer, and `origin` for streams and gigabytes."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks.provision import Programs
from tests.benchmarks.site import Process, Site, free_port, wait_until_listening

_ANSWER = '{"id":42,"state":"shipped","items":[{"sku":"A-1","quantity":2},{"sku":"B-7","quantity":1}],"total":"38.50"}'


def start_fixed(site: Site, programs: Programs) -> tuple[Process, int]:
    """nginx answering every request with the same 110 bytes; `/api/echo` with the identity it was given instead."""
    port = free_port()
    directory = site.directory / "upstream"
    directory.mkdir(exist_ok=True)
    config = directory / "nginx.conf"
    config.write_text(
        f"""\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 '{_ANSWER}'; }}
        location = /api/echo {{ return 200 '$http_x_user_id|$http_authorization'; }}
    }}
}}
"""
    )
    command: list[str | Path] = [programs.path("nginx"), "-p", directory, "-e", "stderr", "-c", config]
    process = site.start("upstream", command, site.cores.load)
    wait_until_listening(port, process)
    return process, port


def start_origin(site: Site) -> tuple[Process, int]:
    """The origin: downloads, uploads and event streams."""
    port = free_port()
    process = site.start("origin", [sys.executable, "-m", "tests.benchmarks.origin", str(port)], site.cores.load)
    wait_until_listening(port, process)
    return process, port
