"""The container image and the compose file agree with the command line and with config/gateway.yaml."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.config.schema import Config
from tests.shipped import (
    COMPOSE,
    PYPROJECT,
    ROOT,
    composed_config,
    dockerfile,
    image_environment,
    last_stage,
    port_of,
    run_gateway,
    variables,
)


@pytest.fixture(scope="module")
def composed() -> Config:
    """config/gateway.yaml as the compose file's gateway reads it."""
    return composed_config()


# --- the image -------------------------------------------------------------------------------------------------------


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    """Kubernetes' runAsNonRoot can only judge a number."""
    user = last_stage()["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_the_image_exposes_what_it_listens_on() -> None:
    """EXPOSE names the ports that its environment sets, and the addresses are reachable from outside the container."""
    environment = image_environment()
    listens = [environment["GATEWAY_LISTEN"], environment["ADMIN_LISTEN"]]
    assert [port_of(listen) for listen in listens] == [int(port) for port in last_stage()["EXPOSE"].split()]
    assert all(listen.startswith("0.0.0.0:") for listen in listens)


def test_the_image_starts_a_command_that_exists() -> None:
    """ENTRYPOINT is the package's script, CMD one of its subcommands with an option it has."""
    stage = last_stage()
    (script,) = json.loads(stage["ENTRYPOINT"])
    assert script in PYPROJECT["project"]["scripts"]
    subcommand, option, path = json.loads(stage["CMD"])
    usage = run_gateway(subcommand, "--help")
    assert usage.returncode == 0
    assert option in usage.stdout
    assert path == "/etc/gateway/gateway.yaml"


def test_the_image_is_built_from_files_that_exist_and_are_sent() -> None:
    """Every COPY of the build context has a source, and .dockerignore lets it through."""
    sent = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in dockerfile():
        if word != "COPY" or rest.startswith("--from="):
            continue
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert Path(source).parts[0] in sent, source


def test_the_image_reads_variables_that_the_shipped_file_has() -> None:
    """The addresses set in the image would be ignored if config/gateway.yaml read other names."""
    assert {name for name in image_environment() if name.endswith("_LISTEN")} <= variables()


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server on 127.0.0.1 that answers every GET with `status`: its port, and the paths it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of http.server
            """Keeps quiet."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


def health_command() -> list[str]:
    """The command after HEALTHCHECK … CMD, with this interpreter for the image's."""
    command: list[str] = json.loads(last_stage()["HEALTHCHECK"].partition("CMD ")[2])
    assert command[0] == "python"
    return [sys.executable, *command[1:]]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_image_is_healthy_when_the_gateway_is_ready(status: int, healthy: bool) -> None:
    """The health check asks the admin address of its environment, and its exit code is the answer."""
    with answering(status) as (port, asked):
        environment = os.environ | {"ADMIN_LISTEN": f"0.0.0.0:{port}"}
        done = subprocess.run(health_command(), env=environment, capture_output=True, timeout=50, check=False)
    assert (done.returncode == 0) is healthy
    assert asked == ["/health/ready"]


# --- compose ---------------------------------------------------------------------------------------------------------


def test_compose_sets_only_variables_that_the_file_reads() -> None:
    """A misspelt variable would leave the default in place, which is loopback."""
    assert set(COMPOSE["services"]["gateway"]["environment"]) <= variables()


def test_compose_mounts_the_folder_whose_file_is_served() -> None:
    """The folder that holds gateway.yaml appears where CMD looks for it, read-only."""
    volumes = COMPOSE["services"]["gateway"]["volumes"]
    served = Path(json.loads(last_stage()["CMD"])[-1]).parent
    assert f"./config:{served}:ro" in volumes
    assert (ROOT / "config/gateway.yaml").is_file()


def test_compose_publishes_the_ports_that_are_listened_on(composed: Config) -> None:
    """Both addresses are published, on loopback only."""
    published = [mapping.split(":") for mapping in COMPOSE["services"]["gateway"]["ports"]]
    assert {host for host, _, _ in published} == {"127.0.0.1"}
    assert {int(inside) for _, _, inside in published} == {
        port_of(composed.server.listen),
        port_of(composed.admin.listen),
    }


def test_compose_has_the_services_that_the_file_asks_for(composed: Config) -> None:
    """The denylist's store and every upstream name a service, at the port on which that service answers."""
    services = COMPOSE["services"]
    assert composed.denylist is not None
    store = urlsplit(composed.denylist.store)
    assert store.hostname in services
    assert store.port == 6379
    assert services[store.hostname]["command"][0] == "redis-server"
    for upstream in composed.upstreams.values():
        for endpoint in map(urlsplit, upstream.endpoints):
            assert endpoint.hostname in services
            assert endpoint.port == port_of(services[endpoint.hostname]["command"][-1])


def test_compose_starts_the_backend_with_a_command_that_exists() -> None:
    """The backend is the image's own echo."""
    subcommand, option, _ = COMPOSE["services"]["backend"]["command"]
    usage = run_gateway(subcommand, "--help")
    assert usage.returncode == 0
    assert option in usage.stdout


def test_compose_waits_for_services_that_can_tell_their_health() -> None:
    """`service_healthy` never comes true for a service without a health check."""
    services = COMPOSE["services"]
    for name, condition in services["gateway"]["depends_on"].items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in services[name]


def test_compose_gives_the_gateway_time_to_drain(composed: Config) -> None:
    """Docker kills after the grace period, so it is longer than announcing and draining together."""
    grace_s = int(COMPOSE["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > composed.server.announce + composed.server.drain


def test_compose_keeps_revocations(composed: Config) -> None:
    """The Redis of the example writes to disk and evicts nothing: a lost key would let a revoked token in again."""
    command = COMPOSE["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options == {"--appendonly": "yes", "--maxmemory-policy": "noeviction"}


def test_files_named_by_the_shipped_configuration_travel_with_it(composed: Config) -> None:
    """A key set on disk lies in config/, so that it is in the image and in the mounted folder as well."""
    for issuer in composed.issuers.values():
        if issuer.jwks_file is not None:
            assert (ROOT / "config" / issuer.jwks_file.name).is_file()
