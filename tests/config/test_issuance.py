"""The `issuer` section: what is refused, what is warned of, and that the gateway trusts its own tokens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.config.load import Examination, examine

_FILE = """\
denylist: {{store: "sqlite://denylist.db"}}
issuer:
  url: https://api.example/auth
{issuer}
{sections}
upstreams: {{app: {{endpoints: ["http://127.0.0.1:9001"]}}}}
routes:
  - {{name: api, path: {path}, upstream: app}}
"""


def read(folder: Path, issuer: str = "", sections: str = "", path: str = "/api/**") -> Examination:
    """The examination of a file with this in its `issuer` section, and these sections beside it."""
    file = folder / "gateway.yaml"
    text = "".join(f"  {line}\n" for line in issuer.splitlines())
    file.write_text(_FILE.format(issuer=text, sections=sections, path=path))
    return examine(file, {"SECRET": "s" * 32})


def test_the_gateway_trusts_its_own_issuer_by_itself(tmp_path: Path) -> None:
    """No entry under `issuers` is needed, and a route may name it."""
    config = read(tmp_path, "name: home\naudience: [api, app]").config
    assert config is not None
    trusted = config.issuers["home"]
    assert (trusted.issuer, trusted.audience, trusted.token_type) == (
        "https://api.example/auth",
        ("api", "app"),
        "at+jwt",
    )


def test_the_store_lies_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default too: `gateway users` means the accounts of `gateway serve`, from whatever folder it is called."""
    monkeypatch.chdir("/")
    for written in ("", "store: sqlite://issuer.db"):
        config = read(tmp_path, written).config
        assert config is not None
        assert config.issuer is not None
        assert config.issuer.store == f"sqlite://{tmp_path}/issuer.db"


def test_postgresql_needs_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the file is checked, with what to install, not by a traceback at start."""
    written = "store: postgresql+asyncpg://gateway@db.example/issuer"
    assert read(tmp_path, written).problems == ()
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    (problem,) = read(tmp_path, written).problems
    assert (problem.path, problem.hint) == ("issuer.store", "pip install 'gateway-edge[postgresql]'")


@pytest.mark.parametrize(
    ("issuer", "place"),
    [
        ("path: /sign-in", "issuer.url"),  # the iss must be where the endpoints are
        ("registration: verified", "issuer.registration"),  # nobody would send the message
        ("store: mysql://x", "issuer.store"),
        ("claims: [sub]", "issuer.claims"),
        ("claims: [scope]", "issuer.claims"),
        ("signing: {encryption_key: short}", "issuer.signing.encryption_key"),
        ("signing: {rotate: 1h, announce: 1h}", "issuer.signing.announce"),
        ("clients: {a: {redirect_uris: ['http://app.example/cb']}}", "issuer.clients.a.redirect_uris"),
        ("clients: {a: {redirect_uris: ['javascript:alert(1)']}}", "issuer.clients.a.redirect_uris"),
        ("clients: {a: {redirect_uris: ['https://app.example/cb#x']}}", "issuer.clients.a.redirect_uris"),
        ("clients: {a: {grants: [authorization_code]}}", "issuer.clients.a"),
        ("clients: {a: {grants: [client_credentials]}}", "issuer.clients.a.grants"),
        ("clients: {a: {secret_sha256: 12, grants: [client_credentials]}}", "issuer.clients.a.secret_sha256"),
        ("clients: {a: {secret: short, grants: [client_credentials]}}", "issuer.clients.a.secret"),
        ("webhook: {url: 'https://mail.example/', secret: short}", "issuer.webhook.secret"),
        ("webhook: {url: 'file:///etc/passwd'}", "issuer.webhook.url"),
        ("client_id: a\nclients: {a: {redirect_uris: ['https://a.example/']}}", "issuer.client_id"),
        ("surprise: 1", "issuer.surprise"),
    ],
)
def test_what_cannot_work_is_refused_at_its_place(tmp_path: Path, issuer: str, place: str) -> None:
    """Each problem names the key, before anything runs."""
    found = read(tmp_path, issuer)
    assert any(problem.path.startswith(place) for problem in found.problems), [p.path for p in found.problems]


def test_routes_and_issuers_may_not_stand_in_its_place(tmp_path: Path) -> None:
    """A route below its path would get no requests; a second issuer of the same name or `iss` would be ambiguous."""
    taken = read(tmp_path, path="/auth/orders")
    assert [problem.path for problem in taken.problems] == ["routes[0].path"]
    assert read(tmp_path, path="/authors/**").problems == ()
    named = "issuers: {own: {issuer: https://a.example, audience: [x], algorithms: [ES256]}}"
    assert [problem.path for problem in read(tmp_path, sections=named).problems] == ["issuers.own"]
    same = "issuers: {b: {issuer: https://api.example/auth, audience: [x], algorithms: [ES256]}}"
    assert [problem.path for problem in read(tmp_path, sections=same).problems] == ["issuers.b.issuer"]


def test_what_is_risky_is_warned_of(tmp_path: Path) -> None:
    """Open registration, long tokens, unencrypted keys and secrets in the file work, and are pointed out."""
    found = read(tmp_path, "registration: open\naccess_token: 1h\nsigning: {rotate: 30d}")
    assert [problem.path for problem in found.warnings] == ["issuer", "issuer.registration", "issuer.access_token"]
    literal = read(tmp_path, "signing: {encryption_key: 0123456789abcdef0123456789abcdef}")
    assert [problem.path for problem in literal.warnings] == ["issuer.signing.encryption_key"]
    assert read(tmp_path, "signing: {encryption_key: '${SECRET}'}").warnings == ()
    plain = "signing: {encryption_key: '${SECRET}'}\nwebhook: {url: 'http://mail.example/hook'}"
    assert [problem.path for problem in read(tmp_path, plain).warnings] == ["issuer.webhook.url"]
    assert read(tmp_path, plain.replace("mail.example", "127.0.0.1:9000")).warnings == ()


def test_the_store_stands_beside_the_file(tmp_path: Path) -> None:
    """A relative path counts from the folder of the YAML file."""
    config = read(tmp_path, "store: sqlite://data.db").config
    assert config is not None
    assert config.issuer is not None
    assert config.issuer.store == f"sqlite://{tmp_path}/data.db"
    assert "data.db" not in repr(config.issuer)
