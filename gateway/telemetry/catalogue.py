"""Every metric: its type, its meaning, its labels, and how the numbers of several workers become one.

The manual's table and the exposition are made from this; a test finds names that are used and not listed. A label's
values come from the configuration or from a list in the code, never from a client, so their number is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Type = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max", "min"]


@dataclass(frozen=True)
class Metric:
    """One family. `merge` says what a scrape makes of the workers' values."""

    type: Type
    help: str
    labels: tuple[str, ...] = ()
    merge: Merge = "sum"


def _counter(text: str, *labels: str) -> Metric:
    return Metric("counter", text, labels)


def _gauge(text: str, *labels: str, merge: Merge = "sum") -> Metric:
    return Metric("gauge", text, labels, merge)


def _histogram(text: str, *labels: str) -> Metric:
    return Metric("histogram", text, labels)


_ENDPOINT = ("upstream", "endpoint")

CATALOGUE: dict[str, Metric] = {
    # requests
    "gateway_requests_total": _counter(
        "Requests that ended, by route, method, status and the error's code (empty when an upstream answered).",
        "route",
        "method",
        "status",
        "code",
    ),
    "gateway_request_duration_seconds": _histogram("From the complete head to the end of the response.", "route"),
    "gateway_upstream_head_seconds": _histogram("From the complete head to the upstream's response head.", "route"),
    "gateway_request_body_bytes_total": _counter("Bytes of request bodies.", "route"),
    "gateway_response_body_bytes_total": _counter("Bytes of response bodies.", "route"),
    "gateway_tokens_remembered_total": _counter("Requests whose token's signature was remembered, not computed."),
    "gateway_live_connections": _gauge(
        "WebSockets, event streams (`events`) and other responses that last, by kind.", "kind"
    ),
    "gateway_live_ended_total": _counter(
        "Live connections ended by the gateway, by kind and reason (token_revoked, token_expired, going_away).",
        "kind",
        "reason",
    ),
    # server
    "gateway_connections": _gauge("Open client connections.", "listener"),
    "gateway_connections_accepted_total": _counter("Client connections accepted.", "listener"),
    "gateway_server_requests_total": _counter("Requests handed to the application.", "listener"),
    "gateway_server_refused_total": _counter(
        "Requests and connections answered by the server itself, by the error's code.", "listener", "code"
    ),
    "gateway_access_log_lines_total": _counter("Access log lines rendered."),
    "gateway_access_log_dropped_total": _counter("Access log lines dropped or lost: the destination is too slow."),
    "gateway_loop_stall_seconds": _histogram("How late the event loop came round, sampled."),
    "gateway_loop_stall_max_seconds": _gauge("The longest such delay of the last minute.", merge="max"),
    "gateway_workers": _gauge("Workers whose numbers are in this answer."),
    "gateway_process_cpu_seconds_total": _counter("CPU time, user and system."),
    "gateway_process_memory_bytes": _gauge("Resident memory."),
    "gateway_process_open_fds": _gauge("Open file descriptors."),
    "gateway_build": _gauge(
        "1, with the version, and whether the request path is compiled.", "version", "build", merge="max"
    ),
    # configuration
    "gateway_config_reloads_total": _counter("Configuration changes seen, by outcome (ok, refused).", "outcome"),
    "gateway_config_generation": _gauge("Number of the configuration in use, from 1; the oldest one.", merge="min"),
    "gateway_config_loaded_timestamp_seconds": _gauge("When the configuration in use was loaded.", merge="min"),
    "gateway_background_faults_total": _counter("Background tasks that failed and were started again."),
    "gateway_ready": _gauge("1 while ready for traffic; 0 if any worker is not.", merge="min"),
    # tokens and keys
    "gateway_token_cache_hits_total": _counter("Look-ups of remembered tokens that found one."),
    "gateway_token_cache_misses_total": _counter("Look-ups of remembered tokens that found none."),
    "gateway_token_cache_entries": _gauge("Remembered tokens."),
    "gateway_keys": _gauge("Usable keys of an issuer; the worker with the fewest.", "issuer", merge="min"),
    "gateway_keys_loads_total": _counter("Attempts to load an issuer's keys, by outcome.", "issuer", "outcome"),
    "gateway_keys_age_seconds": _gauge("Since an issuer's keys were loaded; the oldest.", "issuer", merge="max"),
    "gateway_status_lists": _gauge("Status lists at hand; the worker with the fewest.", "issuer", merge="min"),
    "gateway_status_list_loads_total": _counter("Attempts to load a status list, by outcome.", "issuer", "outcome"),
    "gateway_status_unknown_total": _counter("Requests whose token had a status that could not be told.", "issuer"),
    # denylist
    "gateway_denylist_entries": _gauge("Entries in the replica, by kind; the smallest replica.", "kind", merge="min"),
    "gateway_denylist_staleness_seconds": _gauge("Since the last contact with the store; the longest.", merge="max"),
    "gateway_denylist_loaded": _gauge("1 once the replica is loaded; 0 if any worker's is not.", merge="min"),
    "gateway_denylist_mode": _gauge("Workers that are kept current in this way.", "mode"),
    "gateway_denylist_troubles": _gauge("Things that are wrong; the readiness document names them.", merge="max"),
    "gateway_denylist_loads_total": _counter("Complete loads of the denylist."),
    "gateway_denylist_changes_total": _counter("Changes heard of."),
    "gateway_denylist_connects_total": _counter("Connections made to the store."),
    "gateway_denylist_connection_losses_total": _counter("Connections to the store that were lost."),
    "gateway_denylist_written_back_total": _counter("Entries written to a store that had lost them."),
    "gateway_denylist_write_back_failures_total": _counter("Entries that could not be written back."),
    "gateway_denylist_evicted_total": _counter("Entries that Redis evicted and that are denied here all the same."),
    "gateway_denylist_ignored_keys_total": _counter("Keys below the prefix that are no denylist entry."),
    "gateway_denylist_snapshots_written_total": _counter("Snapshots written to disk."),
    "gateway_denylist_snapshot_failures_total": _counter("Snapshots that could not be written or read."),
    "gateway_denylist_lookups_total": _counter(
        "Requests of strict routes, by what the store said (clear, denied, unanswered).", "outcome"
    ),
    "gateway_revocations_received_total": _counter(
        "Revocations that came in, by source and outcome (accepted, ignored, refused, failed).", "source", "outcome"
    ),
    "gateway_denylist_propagation_seconds": _histogram("From the writer's moment in the value to being in force."),
    "gateway_denylist_apply_seconds": _histogram("From the word of a change to its being in force."),
    # idempotency keys
    "gateway_idempotency_requests_total": _counter(
        "Requests with a key, by outcome (forwarded, replayed, in_use, reused, unknown, missing, unavailable).",
        "outcome",
    ),
    "gateway_idempotency_answers_total": _counter(
        "Forwarded requests by what is kept (whole, head, released, unknown); overtaken: a later one's was kept.",
        "kept",
    ),
    "gateway_idempotency_outlived_total": _counter("Requests with a key that went on when their client had left."),
    "gateway_idempotency_in_flight": _gauge("Claims that are held now."),
    "gateway_idempotency_owed": _gauge("Outcomes that the store has yet to be told."),
    # the built-in issuer
    "gateway_issuer_hashes_total": _counter("Passwords hashed or compared."),
    "gateway_issuer_hashes_refused_total": _counter("Log-ins refused with 503: too many at once."),
    "gateway_issuer_hashes_waiting": _gauge("Passwords being hashed, or waiting for it."),
    "gateway_issuer_throttled_total": _counter("Attempts refused with 429: too many failures before."),
    "gateway_issuer_throttle_fallbacks_total": _counter(
        "Attempts counted in the issuer's store because Redis did not answer."
    ),
    "gateway_issuer_reused_tokens_total": _counter("Sessions ended because an old refresh token came."),
    "gateway_issuer_denials_total": _counter("Revocations handed to the denylist, by outcome.", "outcome"),
    "gateway_issuer_denials_pending": _gauge("Revocations that the denylist has not taken yet.", merge="max"),
    "gateway_issuer_messages_total": _counter("One-time tokens handed to the webhook, by outcome.", "outcome"),
    # upstreams
    "gateway_upstream_connections": _gauge("Open connections, by state (idle, busy).", *_ENDPOINT, "state"),
    "gateway_upstream_waiting": _gauge("Requests that wait for a connection.", *_ENDPOINT),
    "gateway_upstream_connections_opened_total": _counter("Connections opened.", *_ENDPOINT),
    "gateway_upstream_connections_reused_total": _counter("Requests sent on a kept connection.", *_ENDPOINT),
    "gateway_upstream_connect_failures_total": _counter("Connections that could not be opened.", *_ENDPOINT),
    "gateway_upstream_retries_total": _counter("Requests sent again after a kept connection was stale.", *_ENDPOINT),
    "gateway_upstream_bad_responses_total": _counter("Responses that broke the protocol.", *_ENDPOINT),
    "gateway_upstream_timeouts_total": _counter("Waits for the upstream that ran out.", *_ENDPOINT),
    "gateway_upstream_pool_full_total": _counter("Requests refused because the pool stayed full.", *_ENDPOINT),
    "gateway_upstream_endpoint_up": _gauge(
        "1 while the endpoint is used; 0 if any worker skips it.", *_ENDPOINT, merge="min"
    ),
}


def family_of(sample_name: str) -> str:
    """The catalogue's name for a sample: a histogram's `_bucket`, `_sum` and `_count` belong to one family."""
    if sample_name in CATALOGUE:
        return sample_name
    for suffix in ("_bucket", "_sum", "_count"):
        family = sample_name.removesuffix(suffix)
        if family in CATALOGUE and CATALOGUE[family].type == "histogram":
            return family
    raise KeyError(sample_name)
