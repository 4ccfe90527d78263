"""The file as a `Config`, or every problem of it at once, each with its place and its remedy."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gateway.config.load import ConfigError, examine, load
from tests.config.writing import VALID, complaints, examined

# What is replaced in VALID, by what, and the one problem that follows: `line:column path: message`, or its beginning.
_ONE_PROBLEM = [
    # --- YAML ---
    ("  listen: 127.0.0.1:8080", "  listen: 127.0.0.1:8080\n  listen: 127.0.0.1:81", "3:3 server.listen: `listen` app"),
    ("server:", "server: !!map", "1:9 server: a tag"),
    ("  listen: 127.0.0.1:8080", "  drain: 1:30", "2:10 server.drain: `1:30` can be read in two ways"),
    ("  listen: 127.0.0.1:8080", "  workers: 010", "2:12 server.workers: `010` can be read in two ways"),
    ("  listen: 127.0.0.1:8080", "  workers: 0x10", "2:12 server.workers: `0x10` can be read in two ways"),
    ("  listen: 127.0.0.1:8080", "  workers: 1_0", "2:12 server.workers: `1_0` can be read in two ways"),
    ("upstream: orders", "upstream: orders\n    forward_token: yes", "20:20 routes[0].forward_token: `yes` can be rea"),
    ("upstream: orders", "upstream: orders\n    forward_token: off", "20:20 routes[0].forward_token: `off` can be rea"),
    ("server:", "? [a]\n: b\nserver:", "1:3 : a key must be text"),
    ("server:", "server: [", "3:9 : not YAML: "),
    ("server:", "server:\n\tworkers: 1", "2:1 : not YAML: "),
    ("[api]", "[${WORD}]", "8:17 : not YAML: did not find expected ',' or ']' = inside [ ] and { }, put ${…} in quote"),
    ("server:", "--- a\n---\nserver:", "2:1 : not YAML: but found another document"),
    ("server:", "server: &a\n  x: *b\n#", "2:6 : not YAML: found undefined alias"),
    # --- variables ---
    ("127.0.0.1:8080", "${NOPE}", "2:11 server.listen: the environment has no NOPE"),
    ("127.0.0.1:8080", "${NO-PE}", "2:11 server.listen: `${` does not begin a variable"),
    ("127.0.0.1:8080", "${WORD}", "2:11 server.listen: write HOST:PORT"),
    # --- keys and types ---
    ("  listen:", "  lisen:", "2:3 server.lisen: unknown key `lisen` = did you mean `listen`?"),
    ("denylist:", "denylists:", "3:1 denylists: unknown key `denylists` = did you mean `denylist`?"),
    ("127.0.0.1:8080", "8080", "2:11 server.listen: must be text, not a number"),
    ("  listen: 127.0.0.1:8080", "  workers: many", "2:12 server.workers: must be a whole number"),
    ("  listen: 127.0.0.1:8080", "  workers: 0", "2:12 server.workers: must be greater than or equal to 1"),
    ("  listen: 127.0.0.1:8080", "  drain: 30", "2:10 server.drain: a duration is a number with a unit"),
    ("  listen: 127.0.0.1:8080", "  limits: {body_bytes: 10MB}", "2:24 server.limits.body_bytes: a size is a whole"),
    ("  listen: 127.0.0.1:8080", "  limits:", "2:3 server.limits: is empty; must be a mapping of settings"),
    ("  listen: 127.0.0.1:8080", "  trusted_proxies: [10.0.0.1/8]", "2:20 server.trusted_proxies: 10.0.0.1/8 has host"),
    ("[api]", "api", "8:15 issuers.main.audience: must be a list: [api]"),
    ("[api]", "[]", "8:15 issuers.main.audience: needs at least one entry"),
    ("    issuer: https://issuer.example\n", "", "6:3 issuers.main: `issuer` is missing = The exact `iss`."),
    ("  - name: api\n    path: /api/**\n", "  - path: /api/**\n", "17:5 routes[0]: `name` is missing"),
    ("name: api", "name: a:b", "17:11 routes[0].name: must be letters, digits"),
    ("  main:", "  ma in:", "6:3 issuers.ma in: a name is letters, digits"),
    ("upstream: orders", "upstream: orders\n    auth: nune", "20:11 routes[0].auth: must be `required`, `optional` or"),
    ("upstream: orders", "upstream: orders\n    auth: {scopes: [a b]}", "20:21 routes[0].auth.scopes[0]: 'a b' is not"),
    ("upstream: orders", "upstream: orders\n    auth: {mode: none, scopes: [a]}", "20:11 routes[0].auth: auth mode no"),
    ("upstream: orders", "upstream: orders\n    auth: {claims: {a: {equals: [1]}}}", "20:33 routes[0].auth.claims.a.e"),
    ("upstream: orders", "upstream: orders\n    auth: {claims: {a: {}}}", "20:24 routes[0].auth.claims.a: give exactl"),
    ("upstream: orders", "upstream: orders\n    methods: [get]", "20:15 routes[0].methods[0]: 'get' is not a method"),
    ("upstream: orders", "upstream: orders\n    allow_ambiguous: [slash]", "20:23 routes[0].allow_ambiguous[0]: must"),
    # --- revocation ---
    ("store: redis:", "endpoints: /a/../b\n  store: redis:", "4:14 denylist.endpoints: write a plain path"),
    ("store: redis:", "endpoints: gateway/\n  store: redis:", "4:14 denylist.endpoints: write a plain path"),
    (
        "    algorithms: [RS256]",
        "    algorithms: [RS256]\n    revocation: {clients: {app: {secret: short}}}",
        "10:42 issuers.main.revocation.clients.app.secret: shorter than 16 bytes",
    ),
    (
        "    algorithms: [RS256]",
        "    algorithms: [RS256]\n    revocation: {shared_signals: {audience: [a], events: [logout]}}",
        "10:59 issuers.main.revocation.shared_signals.events[0]: must be `session-revoked`, `credential-change`, ",
    ),
    (
        "    algorithms: [RS256]",
        "    algorithms: [RS256]\n"
        "    revocation: {shared_signals: {audience: [a], jwks_uri: https://a/b, discovery: true}}",
        "10:84 issuers.main.revocation.shared_signals.discovery: keys come from one place: discovery stands",
    ),
    (
        "    algorithms: [RS256]",
        "    algorithms: [RS256]\n    revocation: {shared_signals: {audience: [a], algorithms: [ES256]}}",
        "10:62 issuers.main.revocation.shared_signals.algorithms: goes with keys of its own: give jwks_uri, or disc",
    ),
    (
        "    algorithms: [RS256]",
        "    algorithms: [RS256]\n    revocation: {shared_signals: {audience: [a], discovery: true, issuer: us}}",
        "10:61 issuers.main.revocation.shared_signals.discovery: the transmitter's `issuer` is not a URL",
    ),
    (
        "    algorithms: [RS256]",
        "    algorithms: [RS256]\n"
        "    revocation: {shared_signals: {audience: [a], discovery: true, algorithms: [HS256]}}",
        "10:80 issuers.main.revocation.shared_signals.algorithms[0]: must be `RS256`, ",
    ),
    (
        "    algorithms: [RS256]",
        "    algorithms: [RS256]\n    revocation: {backchannel_logout: {}}",
        "10:18 issuers.main.revocation.backchannel_logout: `audience` is missing = Client ids",
    ),
    (
        "    issuer: https://issuer.example",
        "    issuer: issuer\n    jwks_uri: https://issuer.example/jwks\n    revocation: {status_list: true}",
        "9:18 issuers.main.revocation.status_list: `issuer` is not a URL, so it does not say where",
    ),
    (
        "denylist:\n  store: redis://127.0.0.1:6379/0\nissuers:\n  main:",
        "issuers:\n  main:\n    revocation: {backchannel_logout: {audience: [app]}}",
        "5:5 issuers.main.revocation: revocations would have nowhere to go = add `denylist`",
    ),
    # --- issuers ---
    ("[RS256]", "[RS256, HS256]", "9:17 issuers.main.algorithms: HS* beside asymmetric algorithms"),
    ("[RS256]", "[RS265]", "9:18 issuers.main.algorithms[0]: must be `RS256`, "),
    ("[RS256]", "[HS256]", "9:17 issuers.main.algorithms: HS256 needs `secret`"),
    ("[RS256]", "[RS256]\n    secret: ${LONG}", "10:13 issuers.main.secret: a secret goes with HS* algorithms only"),
    ("[RS256]", "[HS512]\n    secret: ${LONG}", "10:13 issuers.main.secret: the secret is shorter than 64 bytes"),
    (
        "[RS256]",
        "[RS256]\n    jwks_uri: https://a/b\n    jwks_file: c.json",
        "11:16 issuers.main.jwks_file: keys come from one place: jwks_file stands beside jwks_uri",
    ),
    ("issuer: https://issuer.example", "issuer: us", "7:13 issuers.main.issuer: not a URL, so its keys cannot be disc"),
    (
        "identity:",
        "  two: {issuer: https://issuer.example, audience: [b], algorithms: [ES256]}\nidentity:",
        "10:17 issuers.two.issuer: issuer `main` has the same `iss`",
    ),
    # --- identity ---
    ("x-user-id: sub", "connection: sub", "12:5 identity.headers.connection: 'connection' is a hop-by-hop, framing or"),
    ("x-user-id: sub", "Content-Length: sub", "12:5 identity.headers.Content-Length: 'Content-Length' is a hop-by-hop"),
    ("x-user-id: sub", "x_user_id: sub", "12:5 identity.headers.x_user_id: 'x_user_id' holds an underscore"),
    ("x-user-id: sub", "x-user-id: sub\n    X-User-Id: a", "12:16 identity.headers.x-user-id: 'x-user-id' appears twi"),
    ("x-user-id: sub", "X-A: {claims: a, claim: b}", "12:11 identity.headers.X-A.claims: unknown key `claims`"),
    # --- upstreams ---
    ("9001]", "9001/x]", "15:17 upstreams.orders.endpoints[0]: write an origin"),
    ("9001]", "9001, https://b]", "15:16 upstreams.orders.endpoints: http and https are mixed"),
    ("http://127.0.0.1:9001]", "https://a]\n    tls: {certificate: '${HERE}'}", "16:24 upstreams.orders.tls.certifica"),
    ("9001]", "9001]\n    tls: {server_name: a}", "16:5 upstreams.orders.tls: has no effect: the endpoints are http"),
    ("http://127.0.0.1:9001]", "https://a]\n    tls: {ca: nowhere.pem}", "16:15 upstreams.orders.tls.ca: there is no"),
    # --- references and routes ---
    ("upstream: orders", "upstream: order", "19:15 routes[0].upstream: no upstream is called `order` = did you mean"),
    ("upstream: orders", "upstream: orders\n    auth: {issuers: [mian]}", "20:22 routes[0].auth.issuers[0]: no issuer"),
    ("path: /api/**", "path: api", "18:11 routes[0].path: a path begins with a slash"),
    ("path: /api/**", "path: /a/../b", "18:11 routes[0].path: "),
    ("path: /api/**", "path: /a/%zz", "18:11 routes[0].path: no request can match it"),
    ("path: /api/**", "path: /api/**\n    host: a*b", "19:11 routes[0].host: "),
    ("/api/**\n    upstream: orders\n", "/{a}\n    upstream: orders\n  - {name: b, path: '/{b}', upstream: orders}\n",
     "20:21 routes[1].path: matches the same requests as route 'api'"),
    ("/api/**\n    upstream: orders\n", "/a\n    upstream: orders\n  - {name: api, path: /b, upstream: orders}\n",
     "20:12 routes[1].name: a route called `api` stands in line 17 already"),
    # --- addresses and stores ---
    ("denylist:", "admin: {listen: 127.0.0.1:8080}\ndenylist:", "3:17 admin.listen: the admin address is the clients'"),
    ("redis://127.0.0.1:6379/0", "mysql://a", "4:10 denylist.store: use redis://"),
    ("redis://127.0.0.1:6379/0", "redis+sentinel://a", "4:10 denylist.store: write redis+sentinel://"),
    ("redis://127.0.0.1:6379/0", "{file: nowhere}", "4:17 denylist.store.file: No such file or directory"),
    ("redis://127.0.0.1:6379/0", "{path: nowhere}", "4:10 denylist.store: a secret is text, or a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "problem"), _ONE_PROBLEM, ids=[case[2] for case in _ONE_PROBLEM])
def test_a_mistake_is_one_problem_with_its_place(tmp_path: Path, old: str, new: str, problem: str) -> None:
    """Each mistake is named once, with line and column, and nothing that merely follows from it is."""
    assert old in VALID
    environ = {"WORD": "word", "LONG": "x" * 40, "HERE": str(tmp_path / "gateway.yaml")}
    found = complaints(tmp_path, VALID.replace(old, new, 1), environ)
    assert len(found) == 1, found
    assert found[0].startswith(problem)


def test_a_valid_file_has_no_problem(tmp_path: Path) -> None:
    """What the other tests change is valid, and its values are where they belong."""
    found = examined(tmp_path, VALID)
    assert (found.problems, found.warnings) == ((), ())
    assert found.config is not None
    assert found.config.issuers["main"].issuer == "https://issuer.example"
    assert found.config.routes[0].auth.mode == "required"
    assert found.config.identity.headers["x-user-id"].claim == "sub"


def test_every_problem_is_found_in_one_run(tmp_path: Path) -> None:
    """Problems of YAML, of types, of references and of routes come together, sorted by line."""
    text = VALID.replace("  listen: 127.0.0.1:8080", "  lisen: 1\n  drain: 1:30\n  drain: 5s")
    text = text.replace("[api]", "api").replace("upstream: orders", "upstream: order")
    text += "  - {name: api, path: /api/**, upstream: orders, auth: nune}\n"
    found = complaints(tmp_path, text)
    assert [complaint.split(" ")[1] for complaint in found] == [
        "server.lisen:",
        "server.drain:",
        "server.drain:",
        "issuers.main.audience:",
        "routes[0].upstream:",
        "routes[1].name:",
        "routes[1].path:",
        "routes[1].auth:",
    ]


def test_a_misspelt_key_is_not_also_a_missing_one(tmp_path: Path) -> None:
    """The suggestion says it already."""
    (complaint,) = complaints(tmp_path, VALID.replace("audience:", "audiense:"))
    assert complaint.startswith("8:5 issuers.main.audiense: unknown key `audiense` = did you mean `audience`?")


def test_a_problem_shows_its_line_with_a_caret(tmp_path: Path) -> None:
    """The place, the source line, the caret below the value, and what to do."""
    found = examined(tmp_path, VALID.replace("upstream: orders", "upstream: order"))
    assert found.problems[0].render().splitlines() == [
        f"{tmp_path}/gateway.yaml:19:15: routes[0].upstream: no upstream is called `order`",
        "   19 |     upstream: order",
        "      |               ^^^^^",
        "      = did you mean `orders`?",
    ]
    assert found.problems[0].brief == (
        f"{tmp_path}/gateway.yaml:19:15: routes[0].upstream: no upstream is called `order` (did you mean `orders`?)"
    )


def test_the_caret_of_a_secret_is_as_wide_as_what_is_shown(tmp_path: Path) -> None:
    """It marks the `***`, and not what stands behind it in the line."""
    (warning,) = examined(
        tmp_path, VALID.replace("redis://127.0.0.1:6379/0", "sqlite:///no/where/denylist.db  # x")
    ).warnings
    assert warning.render().splitlines()[1:] == ["    4 |   store: ***  # x", "      |          ^^^"]


_SECRET = "hunter2-hunter2"
_LEAKS = [
    VALID.replace("[RS256]", f"[HS256]\n    secret: {_SECRET}"),  # too short
    VALID.replace("[RS256]", f'[HS256]\n    secret: "{_SECRET}" # why'),
    VALID.replace("[RS256]", f"[HS256]\n    secret: |\n      {_SECRET}\n"),
    VALID.replace("[RS256]", f"[RS256]\n    secrett: {_SECRET}"),
    VALID.replace("[RS256]", f"[RS256]\n    client_secret: {_SECRET}"),
    VALID.replace("redis://127", f"rediss+x://:{_SECRET}@127"),
    VALID.replace("redis://127", f"redis://user:{_SECRET}/x@127"),
    VALID.replace("http://127.0.0.1:9001", f"http://user:{_SECRET}@127.0.0.1:9001"),
    VALID.replace("https://issuer.example", f"https://issuer.example\n    jwks_uri: https://a:{_SECRET}@b/"),
    VALID.replace("  main:\n", f"  main: {{secret: {_SECRET}, x: [}}\n"),  # not YAML, the secret in the very line
    VALID.replace("[RS256]", f'[HS256]\n    secret: "{_SECRET}\n      {_SECRET}'),  # an unclosed quote
    VALID.replace("[RS256]", f"[HS256]\n    secret: {_SECRET}\n    secret: {_SECRET}"),
    VALID.replace("[RS256]", f"[HS256]\n    secret: !!str {_SECRET}"),
    VALID.replace("[RS256]", f"[HS256]\n    secret: [{_SECRET}]"),
    VALID.replace("[RS256]", f"[HS256]\n    secret: {{file: [{_SECRET}]}}"),
]


@pytest.mark.parametrize("text", _LEAKS, ids=range(len(_LEAKS)))
def test_a_secret_never_shows_in_a_problem(tmp_path: Path, text: str) -> None:
    """Neither the message nor the source line of any problem or warning repeats a secret, however it is written."""
    found = examined(tmp_path, text)
    assert found.problems
    for problem in (*found.problems, *found.warnings):
        assert _SECRET not in problem.render()
        assert _SECRET not in repr(problem)
        assert _SECRET not in str(problem.as_json())


def test_variables_are_replaced_inside_text(tmp_path: Path) -> None:
    """`${NAME}` and `${NAME:-default}` work inside text and for numbers; an empty variable takes the default."""
    text = VALID.replace("127.0.0.1:8080", "${HOST}:${PORT:-8081}").replace(
        "server:", "server:\n  workers: ${WORKERS:-3}\n  drain: '${DRAIN:-1m}'"
    )
    found = examined(
        tmp_path, text.replace("x-user-id: sub", "x-user-id: $${sub}"), {"HOST": "127.0.0.9", "WORKERS": ""}
    )
    assert found.problems == ()
    assert found.config is not None
    assert found.config.server.listen == "127.0.0.9:8081"
    assert (found.config.server.workers, found.config.server.drain) == (3, 60.0)
    assert found.config.identity.headers["x-user-id"].claim == "${sub}"


def test_a_secret_of_digits_stays_text(tmp_path: Path) -> None:
    """What a variable holds is never guessed to be a number."""
    text = VALID.replace("[RS256]", "[HS256]\n    secret: ${KEY}")
    found = examined(tmp_path, text, {"KEY": "0123456789" * 4})
    assert found.problems == ()
    assert found.config is not None
    secret = found.config.issuers["main"].secret
    assert secret is not None
    assert secret.get_secret_value() == b"0123456789" * 4
    assert found.warnings == ()


def test_a_secret_is_read_from_a_file_beside_the_yaml(tmp_path: Path) -> None:
    """`{file: path}` counts from the YAML file's folder; one line ending at the end is not part of the secret."""
    (tmp_path / "secret").write_bytes(b"\xff" * 40 + b"\n")
    (tmp_path / "redis").write_text("redis://:pw@127.0.0.1:6379/0\n")
    text = VALID.replace("[RS256]", "[HS256]\n    secret: {file: secret}").replace(
        "redis://127.0.0.1:6379/0", "{file: redis}"
    )
    found = examined(tmp_path, text)
    assert found.problems == ()
    assert found.config is not None
    secret = found.config.issuers["main"].secret
    assert secret is not None
    assert secret.get_secret_value() == b"\xff" * 40
    assert found.config.denylist is not None
    assert found.config.denylist.store == "redis://:pw@127.0.0.1:6379/0"
    assert "pw" not in repr(found.config)


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    """Key sets, snapshots, logs and an embedded store stand beside the file, wherever the gateway is started."""
    text = VALID.replace("redis://127.0.0.1:6379/0", "sqlite://deny.db\n  snapshot: ../s.snapshot")
    text = text.replace("[RS256]", "[RS256]\n    jwks_file: /abs/keys.json")
    found = examined(tmp_path, text + "telemetry: {access_log: {destination: logs/access.log}}\n")
    config = found.config
    assert config is not None
    assert config.denylist is not None
    assert config.denylist.store == f"sqlite://{tmp_path}/deny.db"
    assert config.denylist.snapshot == tmp_path.parent / "s.snapshot"
    assert config.issuers["main"].jwks_file == Path("/abs/keys.json")
    assert config.telemetry.access_log.destination == f"{tmp_path}/logs/access.log"


# What is added to or replaced in VALID, and the beginning of the warning.
_WARNINGS = [
    ("denylist:\n  store: redis://127.0.0.1:6379/0\n", "", "no denylist"),
    ("[RS256]", f"[HS256]\n    secret: {'x' * 40}", "a secret written into the file"),
    ("https://issuer.example", "http://issuer.example", "keys fetched over plain http"),
    ("[RS256]", "[RS256]\n    credentials: {query: t}", "a token in a URL"),
    ("[RS256]", "[RS256]\n    jwks_file: nowhere.json", ""),
    ("http://127.0.0.1:9001]", "https://a]\n    tls: {insecure_skip_verify: true}", "any certificate is accepted"),
    ("upstreams:", "upstreams:\n  spare: {endpoints: [http://a]}", "no route uses this upstream"),
    ("denylist:", "admin: {listen: 0.0.0.0:9901}\ndenylist:", "health, metrics and the admin API"),
    ("server:", "server:\n  trusted_proxies: [0.0.0.0/0]", "every client may then claim"),
    ("redis://127.0.0.1:6379/0", "sqlite:///nowhere/deny.db", "the folder /nowhere does not exist"),
    ("upstream: orders", "upstream: orders\n    auth: none\n    credentials: {cookie: a}", "no token is looked at"),
]


@pytest.mark.parametrize(("old", "new", "warning"), _WARNINGS, ids=[case[2] for case in _WARNINGS])
def test_what_works_but_is_probably_not_meant_is_a_warning(tmp_path: Path, old: str, new: str, warning: str) -> None:
    """A warning stands beside a usable configuration."""
    assert old in VALID
    found = examined(tmp_path, VALID.replace(old, new, 1))
    assert found.config is not None, found.problems
    assert [found.message for found in found.warnings if warning in found.message]
    assert len(found.warnings) == 1


def test_routes_that_check_tokens_need_an_issuer(tmp_path: Path) -> None:
    """Without issuers every token is refused: the file cannot mean that."""
    text = VALID.replace(VALID[VALID.index("issuers:") : VALID.index("identity:")], "")
    assert complaints(tmp_path, text) == [
        "12:5 routes[0]: route `api` checks tokens, but the file has no issuers"
        " = add one under `issuers`, or write `auth: none`"
    ]


def test_anchors_aliases_and_merge_keys_work(tmp_path: Path) -> None:
    """A mapping may be reused; its own keys win over merged ones, and problems show where they stand."""
    text = VALID + "    auth: &admin {scopes: [admin]}\n    timeouts: &slow {head: 1m, idle: 2m}\n"
    text += "  - {name: b, path: /b, upstream: orders, auth: *admin, timeouts: {<<: *slow, head: 5s}}\n"
    found = examined(tmp_path, text)
    assert found.config is not None, found.problems
    second = found.config.routes[1]
    assert (second.auth.scopes.all, second.timeouts.head, second.timeouts.idle) == (("admin",), 5.0, 120.0)


def test_aliases_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    """A file of a few lines cannot make the gateway build millions of values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    found = complaints(tmp_path, "\n".join(lines))
    assert any("unfolds to more than 250,000 values" in complaint for complaint in found)


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: *a}", "[" * 900 + "]" * 900, "\x00", "a: \x07"])
def test_hostile_yaml_is_a_problem_not_a_crash(tmp_path: Path, text: str) -> None:
    """Recursion, deep nesting and control characters end in a problem with a place."""
    found = examined(tmp_path, text)
    assert found.config is None
    assert found.problems[0].render()


def test_files_that_cannot_be_read_are_problems(tmp_path: Path) -> None:
    """A missing file, a folder, text that is not UTF-8 and an empty file are told apart."""
    (tmp_path / "latin").write_bytes(b"a: b\nc: \xe9\n")
    (tmp_path / "empty").write_bytes(b"# nothing\n")
    messages = [examine(tmp_path / name, {}).problems[0].message for name in ("none", "", "latin", "empty")]
    assert messages == ["No such file or directory", "Is a directory", "line 2 is not UTF-8", "the file is empty"]


def test_line_endings_do_not_move_places(tmp_path: Path) -> None:
    """A file from Windows, with a byte-order mark, has the same lines and columns."""
    path = tmp_path / "gateway.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf" + VALID.replace("upstream: orders", "upstream: order").replace("\n", "\r\n").encode()
    )
    (problem,) = examine(path, {}).problems
    assert (problem.line, problem.column, problem.source_line) == (19, 15, "    upstream: order")


def test_load_gives_the_config_or_raises_with_every_problem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`load` is `examine` for programs: warnings go to the log, problems into the exception."""
    path = tmp_path / "gateway.yaml"
    path.write_text(VALID.replace("issuer.example", "issuer.example").replace("https://issuer", "http://issuer"))
    with caplog.at_level(logging.WARNING, "gateway.config"):
        assert load(path, {}).routes[0].name == "api"
    assert "plain http" in caplog.text
    path.write_text(VALID.replace("[api]", "api").replace("upstream: orders", "upstream: order"))
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert len(caught.value.problems) == 2
    assert "did you mean `orders`?" in str(caught.value)
