"""Ready for traffic or not, and why."""

from gateway.telemetry.health import Probe, Readiness


def _probe(works: bool, text: str) -> Probe:
    return lambda: (works, text)


def test_ready_means_that_everything_has_worked_once() -> None:
    """Waiting for a first success is unready; failing after one is degraded, and ready."""
    probes = {"issuer main": _probe(False, "no keys yet"), "denylist": _probe(True, "1 entry")}
    readiness = Readiness(lambda: probes)
    ready, document = readiness.report()
    assert not ready
    assert document == {
        "status": "starting",
        "dependencies": {
            "issuer main": {"state": "waiting", "text": "no keys yet"},
            "denylist": {"state": "ok", "text": "1 entry"},
        },
    }
    probes["issuer main"] = _probe(True, "2 keys")
    assert readiness.report()[0]
    probes["issuer main"] = _probe(False, "the last refresh failed")
    ready, document = readiness.report()
    assert ready
    assert readiness.dependencies()["issuer main"].state == "degraded"
    assert [sample.value for sample in readiness.samples()] == [1.0]


def test_draining_is_unready_whatever_the_rest_says() -> None:
    """And stays so."""
    readiness = Readiness(lambda: {"denylist": _probe(True, "")})
    readiness.begin_drain()
    assert readiness.report() == (
        False,
        {"status": "draining", "dependencies": {"denylist": {"state": "ok", "text": ""}}},
    )
    assert [sample.value for sample in readiness.samples()] == [0.0]


def test_a_dependency_that_comes_back_has_to_prove_itself_again() -> None:
    """A name that left with one configuration and returns with another starts anew."""
    probes = {"issuer main": _probe(True, "")}
    readiness = Readiness(lambda: probes)
    assert readiness.report()[0]
    del probes["issuer main"]
    assert readiness.report()[0]
    probes["issuer main"] = _probe(False, "")
    assert readiness.dependencies()["issuer main"].state == "waiting"


def test_a_dependency_that_a_swap_brings_cannot_take_a_working_gateway_out_of_service() -> None:
    """A new issuer without keys fails its own tokens; every gateway at once out of rotation would fail all."""
    probes = {"issuer main": _probe(True, "")}
    readiness = Readiness(lambda: probes)
    assert readiness.report()[0]
    probes["issuer new"] = _probe(False, "no keys yet")
    ready, document = readiness.report()
    assert ready
    assert document["status"] == "ready"
