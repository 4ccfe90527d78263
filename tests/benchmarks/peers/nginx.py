"""nginx as a plain proxy that checks nothing: the floor below which no HTTP proxy of this shape goes."""

from __future__ import annotations

from tests.benchmarks.peers.peer import IDLE_CONNECTIONS, Command, Peer, Setting

# Two descriptors a connection at the most, and a few of its own.
_WORKER_CONNECTIONS = IDLE_CONNECTIONS + 4_096


def _prepare(setting: Setting) -> Command:
    config = setting.write("nginx.conf", _config(setting))
    return [setting.programs.path("nginx"), "-p", setting.directory, "-e", "stderr", "-c", config]


def _config(setting: Setting) -> str:
    return f"""\
daemon off;
worker_processes 1;
pid {setting.directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections {_WORKER_CONNECTIONS}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_max_body_size 0;
    client_body_temp_path {setting.directory}/body;
    proxy_temp_path {setting.directory}/proxy;
    fastcgi_temp_path {setting.directory}/fastcgi;
    uwsgi_temp_path {setting.directory}/uwsgi;
    scgi_temp_path {setting.directory}/scgi;
    upstream only {{
        server 127.0.0.1:{setting.upstream_port};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{setting.port};
        location / {{
            proxy_pass http://only;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_read_timeout 300s;
            # An event stream has to arrive event by event; small answers cost the same either way.
            location /api/events {{ proxy_pass http://only; proxy_buffering off; }}
        }}
    }}
}}
"""


PEER = Peer("nginx", "nginx plain proxy (floor)", "nothing: forwards every request as it is", _prepare, verifies=False)
