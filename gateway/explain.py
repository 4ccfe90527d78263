"""What would happen to one request, and why: the steps of `gateway.pipeline`, told instead of taken.

The same parts decide (route table, verifier, policy, identity), so an explanation cannot drift from the truth. Keys are
fetched and the denylist's store is asked unless `is_offline`; the upstream is never contacted. No token is ever shown;
what an unverified one claims is shown only as what it claims.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.config.listing import auth_text
from gateway.config.quantities import format_duration
from gateway.config.schema import Config, Route
from gateway.denylist.grammar import is_denied, keys_naming
from gateway.denylist.replica import Replica
from gateway.denylist.store import StoreError, open_store
from gateway.errors import (
    GatewayError,
    IdempotencyKeyMissing,
    KeysUnavailable,
    MethodNotAllowed,
    NoRoute,
    StatusUnavailable,
    TokenInvalid,
    TokenRevoked,
)
from gateway.explanation import Explanation, Probe
from gateway.idempotency.key import find_key
from gateway.idempotency.route import needs_key, takes_key
from gateway.identity import IdentityHeaders
from gateway.keys.source import build_key_source
from gateway.policy import Permit, Policy
from gateway.routing.pattern import RouteShape
from gateway.routing.table import RouteTable
from gateway.tokens.bearer import CredentialSources, find_token
from gateway.tokens.cache import TokenCache
from gateway.tokens.claims import Token, parse_compact, parse_unverified_claims
from gateway.tokens.status_cache import StatusLists
from gateway.tokens.status_list import STATUSES, VALID, StatusReference
from gateway.tokens.verifier import IssuerRules, Verifier, check_route, signer_of
from gateway.upstream.headers import spelling

# What helps, by the beginning of the cause: the causes are written by the steps for the log.
_REMEDIES = (
    (
        "alg is not accepted from",
        "add the algorithm to the issuer's `algorithms`, or let the issuer sign with one of them",
    ),
    ("alg is not", "no issuer in the file accepts this algorithm; see `algorithms`"),
    ("iss is", "`issuer` must equal the token's `iss` exactly, trailing slash included"),
    ("typ is", "set the issuer's `token_type` to the token's `typ`, or to `any`"),
    ("aud does not name us", "ask the issuer for one of the issuer's `audience`, or extend that list"),
    ("aud does not name this", "ask the issuer for one of this route's `audience`"),
    ("issuer is not accepted on", "the route's `auth.issuers` leaves this issuer out"),
    ("not valid yet", "compare the clocks of issuer and gateway; `leeway` tolerates a difference"),
    ("no key of that", "the key set has no such key: is it the issuer's present key set, and has it been rotated?"),
    ("signature", "the token was changed, or signed by a key that only shares its id with the issuer's"),
    ("iat is missing", "the issuer has a `max_age`, so its tokens must carry `iat`"),
    ("not three", "a JWT in compact form has three parts; an opaque token cannot be checked here"),
)


async def explain(config: Config, probe: Probe, *, now: float, is_offline: bool = False) -> Explanation:
    """Walks one request through the steps. `now` is epoch seconds."""
    told = Explanation()
    route = _match(config, probe, told)
    if route is None:
        return told
    token: Token | None = None
    if route.auth.mode == "none":
        told.add("credential", "not looked at: this route has `auth: none`")
    else:
        raw = _credential(config, route, probe, told)
        if told.is_refused:
            return told
        if raw is not None:
            token = await _verify(config, route, raw, told, now, is_offline)
            if token is None:
                return told
            if not await _is_allowed_by_denylist(config, route, token, told, is_offline):
                return told
            if not await _is_allowed_by_status_list(config, token, told, is_offline):
                return told
    permit = _authorize(route, token, told)
    if permit is None:
        return told
    _identify(config, permit, probe, told)
    if not told.is_refused:
        _repeat(route, probe, told)
    if not told.is_refused:
        endpoints = ", ".join(config.upstreams[route.upstream].endpoints)
        told.add("forward", f"to upstream `{route.upstream}` ({endpoints})")
    return told


def _match(config: Config, probe: Probe, told: Explanation) -> Route | None:
    entries = [(RouteShape(r.name, r.host, r.path, r.methods, r.allow_ambiguous), r) for r in config.routes]
    table = RouteTable(entries)
    try:
        route = table.match(probe.method, probe.host, probe.raw_path)
    except NoRoute as exc:
        told.refuse("match", exc, remedy="`gateway routes` lists what there is; add a route, or look at host and path")
        return None
    except MethodNotAllowed as exc:
        remedy = f"use {' or '.join(exc.allow)}, or add {probe.method} to a route's `methods`"
        told.refuse("match", exc, remedy=remedy)
        return None
    except GatewayError as exc:
        told.refuse(
            "match", exc, remedy="send the plain form of the path; `allow_ambiguous` of a route admits some forms"
        )
        return None
    others = [other.name for _, other in table.candidates(probe.host, probe.raw_path) if other is not route]
    says = [f"route `{route.name}` ({route.path}), auth {auth_text(route.auth)}"]
    if others:
        says.append(f"less specific or for other methods: {', '.join(others)}")
    told.add("match", *says)
    return route


def _credential(config: Config, route: Route, probe: Probe, told: Explanation) -> bytes | None:
    names = config.issuers if route.auth.issuers is None else route.auth.issuers
    settings = [route.credentials] if route.credentials else [config.issuers[name].credentials for name in names]
    sources = CredentialSources.of(settings)
    try:
        raw = find_token(probe.headers, probe.query_string, sources)
    except GatewayError as exc:
        told.refuse("credential", exc, exc.cause or "", remedy="send exactly one token, in one place")
        return None
    places = ["Authorization: Bearer"]
    if sources is not None:
        places += [f"cookie {name.decode()}" for name in sorted(sources.cookies)]
        places += [f"query parameter {name.decode()}" for name in sorted(sources.queries)]
    says = f"looked for in {', '.join(places)}"
    told.add("credential", "one token" if raw is not None else "no token", says)
    return raw


async def _verify(
    config: Config, route: Route, raw: bytes, told: Explanation, now: float, is_offline: bool
) -> Token | None:
    claimed = _claimed(raw, now)
    rules = [
        IssuerRules.of(name, issuer, build_key_source(name, issuer))
        for name, issuer in config.issuers.items()
        if not is_offline or issuer.secret is not None or issuer.jwks_file is not None
    ]
    hidden = len(config.issuers) - len(rules)
    if not rules:
        told.add("verify", "not checked: --offline, and the keys are on a server", *claimed, outcome="unknown")
        return None
    await _load_keys(rules, raw)
    try:
        token = await Verifier(rules, TokenCache()).verify(raw, now)
        check_route(
            token,
            frozenset(route.auth.issuers) if route.auth.issuers is not None else None,
            frozenset(route.auth.audience) if route.auth.audience is not None else None,
        )
    except GatewayError as exc:
        cause = exc.cause or ""
        if hidden and cause.startswith(("iss is", "alg is not accepted")):
            told.add(
                "verify", "not checked: --offline, and this issuer's keys are on a server", *claimed, outcome="unknown"
            )
            return None
        remedy = next((text for start, text in _REMEDIES if cause.startswith(start)), "")
        if isinstance(exc, KeysUnavailable):
            remedy = "can this machine reach the issuer's key set? see `jwks_uri`, `jwks_file`, `ca`"
        elif exc.code == "token_expired":
            remedy = "the client refreshes its token, or signs in again"
        told.refuse("verify", exc, *([f"because: {cause}"] if cause else []), *claimed, remedy=remedy)
        return None
    told.add("verify", f"genuine, from issuer `{token.issuer}`, {token.alg}, key {token.kid or 'without id'}", *claimed)
    return token


async def _load_keys(rules: Sequence[IssuerRules], raw: bytes) -> None:
    """A running gateway has its keys, and so tells an expired token from a forged one; here they load now."""
    with contextlib.suppress(GatewayError):  # what is wrong with the token, or with the keys, is said by `verify`
        unverified = parse_compact(raw)
        issuer = parse_unverified_claims(unverified).get("iss")
        for rule in rules:
            if rule.issuer == issuer:
                await rule.keys.find(unverified.unverified_header.kid, unverified.unverified_header.alg)


def _claimed(raw: bytes, now: float) -> list[str]:
    """What a token says about itself, believed or not; nothing if it cannot be read."""
    try:
        unverified = parse_compact(raw)
        claims = parse_unverified_claims(unverified)
    except GatewayError:
        return []
    header = unverified.unverified_header
    said = [f"alg {header.alg}", f"typ {header.typ}", f"kid {header.kid}"]
    said += [f"{name} {claims[name]!r}" for name in ("iss", "aud") if name in claims]
    times = [
        _moment(name, claims[name], now) for name in ("iat", "nbf", "exp") if type(claims.get(name)) in (int, float)
    ]
    return [f"it says: {', '.join(said)}", *([f"its times: {', '.join(times)}"] if times else [])]


def _moment(name: str, at: float, now: float) -> str:
    try:
        text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{name} {at!r}"
    distance = f"in {at - now:.0f} s" if at > now else f"{now - at:.0f} s ago"
    return f"{name} {text} ({distance})"


async def _is_allowed_by_denylist(
    config: Config, route: Route, token: Token, told: Explanation, is_offline: bool
) -> bool:
    if config.denylist is None or is_offline:
        reason = "the file has no denylist" if config.denylist is None else "not asked: --offline"
        told.add("revoked?", reason, outcome="ok" if config.denylist is None else "unknown")
        return True
    keys = list(
        keys_naming(
            token.issuer,
            token_id=token.token_id,
            session_id=token.session_id,
            subject=token.subject,
            client_id=token.client_id,
            kid=token.kid,
        )
    )
    store = open_store(config.denylist, Replica(config.denylist.prefix))
    try:
        values = await store.lookup([key for _, key in keys])
    except StoreError as exc:
        mode = route.denylist.when_stale or config.denylist.when_stale
        says = f"the store could not be asked: {exc}"
        then = (
            "once stale, this route answers 503 denylist_stale"
            if mode == "refuse"
            else "once stale, this route lets it pass"
        )
        told.add("revoked?", says, then, outcome="unknown")
        return True
    finally:
        await store.close()
    for (kind, key), value in zip(keys, values, strict=True):
        if value is not None and is_denied(kind, value, token.issued_at):
            remedy = "the user signs in again" if kind != "token" else "the client needs a new token"
            told.refuse(
                "revoked?", TokenRevoked(), f"because of the entry {config.denylist.prefix}{key}", remedy=remedy
            )
            return False
    told.add("revoked?", "no entry of the denylist names it")
    return True


async def _is_allowed_by_status_list(config: Config, token: Token, told: Explanation, is_offline: bool) -> bool:
    """Nothing is said where the issuer has no lists and the token refers to none."""
    issuer, signer = config.issuers[token.issuer], signer_of(token)
    wanted = issuer.revocation.status_list
    if wanted is None or signer is None:
        if "status" in token.claims:
            told.add("status", "the token has a status, which is not looked up: the issuer has no `status_list`")
        return True
    lists = StatusLists.of(token.issuer, issuer, signer.keys)
    try:
        reference = lists.reference(token)
    except TokenInvalid as exc:
        told.refuse(
            "status", exc, f"because: {exc.cause}", remedy="the issuer has to write it as the draft says (§6.2)"
        )
        return False
    if reference is None:
        told.add("status", "the token refers to no status list")
        return True
    place = f"place {reference.index} of the list at {_address(reference.uri)}"
    if is_offline:
        told.add("status", f"not looked up: --offline; it stands at {place}", outcome="unknown")
        return True
    return await _look_up(lists, reference, place, told, allows_unknown=wanted.when_unknown == "allow")


async def _look_up(
    lists: StatusLists, reference: StatusReference, place: str, told: Explanation, *, allows_unknown: bool
) -> bool:
    found = await lists.find(reference.uri)
    if found is None:
        says = f"it stands at {place}, which could not be had: {lists.trouble(reference.uri)}"
        if allows_unknown:
            told.add("status", says, "`when_unknown: allow` lets the token pass", outcome="unknown")
            return True
        remedy = "can this machine reach it? see `origins` and `when_unknown` of the issuer's `status_list`"
        told.refuse("status", StatusUnavailable(), says, remedy=remedy)
        return False
    try:
        status = found.at(reference.index)
    except IndexError:
        remedy = "the issuer's list is shorter than its tokens say"
        told.refuse("status", TokenInvalid(), f"there is no {place}", remedy=remedy)
        return False
    named = STATUSES.get(status, f"{status}, which has a meaning to the issuer alone")
    if status != VALID:
        told.refuse("status", TokenRevoked(), f"because it is {named} at {place}", remedy="the issuer decides about it")
        return False
    told.add("status", f"{named} at {place}")
    return True


def _address(uri: str) -> str:
    """An address without query, which may hold a secret."""
    return uri.partition("?")[0]


def _authorize(route: Route, token: Token | None, told: Explanation) -> Permit | None:
    try:
        permit = Policy(route.auth).authorize(token)
    except GatewayError as exc:
        says = [f"because: {exc.cause}"] if exc.cause else []
        if token is None:
            remedy = "send `Authorization: Bearer …`, or give the route `auth: optional` or `none`"
        else:
            says.append(f"the token has scopes: {' '.join(sorted(token.scopes)) or 'none'}")
            remedy = f"the route asks for {auth_text(route.auth)}; the issuer decides what a token carries"
        told.refuse("authorize", exc, *says, remedy=remedy)
        return None
    told.add("authorize", "anonymous" if token is None else "the token carries what the route asks for")
    return permit


def _repeat(route: Route, probe: Probe, told: Explanation) -> None:
    """What the route does with `Idempotency-Key`; nothing is told of routes and methods that have none of it."""
    rules = route.idempotency
    method = probe.method.encode()
    if rules.mode == "off" or not takes_key(method):
        return
    try:
        key = find_key(probe.headers)
        if key is None and rules.mode == "required" and needs_key(method):
            raise IdempotencyKeyMissing
    except GatewayError as exc:
        told.refuse("repeated?", exc, remedy="send `Idempotency-Key: …`, the same with each repetition of a request")
        return
    if key is None:
        told.add("repeated?", "no Idempotency-Key: forwarded each time it comes")
        return
    kept = f"its answer is kept for {format_duration(rules.ttl)}, for this caller on this route"
    told.add("repeated?", f"Idempotency-Key `{key}`: forwarded once", kept, "not asked: whether it has come before")


def _identify(config: Config, permit: Permit, probe: Probe, told: Explanation) -> None:
    identity = IdentityHeaders(config.identity)
    try:
        headers = identity.render(permit)
    except GatewayError as exc:
        told.refuse("identify", exc, f"because: {exc.cause}", remedy="choose a smaller claim for that header")
        return
    says = [f"{name.decode()}: {value.decode('latin-1')}" for name, value in headers]
    stripped = {spelling(name) for name in identity.stripped}
    removed = sorted({name.decode("latin-1") for name, _ in probe.headers if spelling(name) in stripped})
    if removed:
        says.append(f"removed, because only the gateway may say it: {', '.join(removed)}")
    told.add("identify", *(says or ["no identity headers"]))
