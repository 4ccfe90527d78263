"""The deployment examples agree with the image, the command line and the configuration they carry."""

import shlex
from collections.abc import Mapping
from typing import Any

import pytest

import gateway
from gateway.config.load import load
from gateway.config.schema import Config
from tests.shipped import MANIFESTS, ROOT, composed_config, image_environment, last_stage, port_of, run_gateway


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The ConfigMap's file as the pod reads it."""
    (name,) = MANIFESTS["ConfigMap"]["data"]
    path = tmp_path_factory.mktemp("configmap") / name
    path.write_text(MANIFESTS["ConfigMap"]["data"][name])
    return load(path, environ=image_environment() | MANIFESTS["Secret"]["stringData"])


def pod() -> dict[str, Any]:
    """The pod's specification."""
    spec: dict[str, Any] = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    """The pod's one container."""
    (only,) = pod()["containers"]
    return dict(only)


def test_the_pod_serves_the_configmap() -> None:
    """The mounted folder holds the file that the arguments name, and is not a subPath, which would never change."""
    mount = next(mount for mount in container()["volumeMounts"] if mount["name"] == "config")
    assert "subPath" not in mount
    assert container()["args"] == ["serve", "--config", f"{mount['mountPath']}/gateway.yaml"]
    assert "gateway.yaml" in MANIFESTS["ConfigMap"]["data"]


def test_the_pods_ports_are_those_of_its_configuration(deployed: Config) -> None:
    """Clients' and admin port are named in the pod; the Service hands on the clients' alone."""
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": port_of(deployed.server.listen), "admin": port_of(deployed.admin.listen)}
    assert [port["targetPort"] for port in MANIFESTS["Service"]["spec"]["ports"]] == ["http"]


def test_the_probes_ask_the_admin_address() -> None:
    """A lost dependency takes the pod out of service but never restarts it."""
    probes = {name: probe["httpGet"] for name, probe in container().items() if name.endswith("Probe")}
    # No startup probe: one for readiness would restart pods that wait for an issuer that is away.
    assert probes == {
        "readinessProbe": {"path": "/health/ready", "port": "admin"},
        "livenessProbe": {"path": "/health/live", "port": "admin"},
    }


def test_the_pod_has_time_to_drain(deployed: Config) -> None:
    """Long enough unready for the probe to notice, and killed only after announcing and draining."""
    readiness = container()["readinessProbe"]
    assert deployed.server.announce > readiness["periodSeconds"] * readiness["failureThreshold"]
    assert pod()["terminationGracePeriodSeconds"] > deployed.server.announce + deployed.server.drain


def test_the_pod_is_the_images_user_and_may_write_where_it_must(deployed: Config) -> None:
    """The root is read-only; the denylist's snapshot lies on a volume."""
    security = pod()["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == last_stage()["USER"]
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployed.denylist is not None
    assert deployed.denylist.snapshot is not None
    assert str(deployed.denylist.snapshot.parent) in {mount["mountPath"] for mount in container()["volumeMounts"]}


def test_labels_select_the_pods() -> None:
    """Deployment, Service and disruption budget select the labels that the pods carry."""
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]
    assert selectors == [labels] * 3


def test_the_manifest_runs_this_version() -> None:
    """The image's tag is the package's version."""
    assert container()["image"] == f"gateway-edge:{gateway.__version__}"


def systemd_unit() -> Mapping[str, list[str]]:
    """The settings of the unit; one may stand several times."""
    settings: dict[str, list[str]] = {}
    for line in (ROOT / "deploy/gateway.service").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings.setdefault(name, []).append(value)
    return settings


def test_the_systemd_unit_runs_commands_that_exist() -> None:
    """It checks, serves and reloads the same file, and waits for the drain before it kills."""
    unit = systemd_unit()
    server = composed_config().server
    for setting, subcommand in (("ExecStartPre", "check"), ("ExecStart", "serve")):
        (line,) = unit[setting]
        assert shlex.split(line) == ["/opt/gateway/bin/gateway", subcommand, "--config", "/etc/gateway/gateway.yaml"]
        assert run_gateway(subcommand, "--help").returncode == 0
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert int(unit["TimeoutStopSec"][0]) > server.announce + server.drain
