"""What the issuer keeps, table by table. Moments are epoch seconds; ids are random; hashes are SHA-256 unless said."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Double, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", String(32), primary_key=True),  # `sub`
    Column("username", String(256), unique=True),  # as compared: NFKC, case-folded; None: e-mail only
    Column("email", String(320), unique=True),  # as compared; None: user name only
    Column("email_verified", Boolean, nullable=False),
    Column("password_hash", String(512), nullable=False),  # argon2id, PHC string
    Column("roles", JSON, nullable=False),  # list of strings
    Column("claims", JSON, nullable=False),  # further claims, by name
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("password_changed_at", Double, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),  # `sid`
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("client_id", String(64), nullable=False),
    Column("scope", String(2048), nullable=False),
    Column("platform", String(16), nullable=False),
    Column("device_name", String(128), nullable=False),
    Column("address", String(64), nullable=False),  # of the last refresh
    Column("created_at", Double, nullable=False),
    Column("last_seen_at", Double, nullable=False),
    Column("idle_expires_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("ended_at", Double),  # None: alive
    Column("end_reason", String(32)),
    # The refresh token: at most one is live, the one before it is remembered, older ones are recognised by their tag.
    Column("sequence", Integer, nullable=False),
    Column("current_hash", LargeBinary(32), nullable=False),
    Column("previous_hash", LargeBinary(32)),
    Column("successor_salt", LargeBinary(16)),  # with the previous token gives the current one again
    Column("rotated_at", Double, nullable=False),
    Index("sessions_by_user", "user_id"),
    Index("sessions_by_expiry", "expires_at"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("algorithm", String(16), nullable=False),
    Column("public_jwk", JSON, nullable=False),
    Column("private", LargeBinary, nullable=False),  # PKCS #8, sealed if there is an encryption key
    Column("created_at", Double, nullable=False),  # published from here on
    Column("use_from", Double, nullable=False),
    Column("retire_at", Double),  # no longer published; None: not yet replaced
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),  # sealed likewise
)

one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("purpose", String(16), nullable=False),  # register, reset, notice
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE")),
    Column("payload", JSON, nullable=False),
    Column("expires_at", Double, nullable=False),
    Index("one_time_tokens_by_expiry", "expires_at"),
)

authorization_codes = Table(
    "authorization_codes",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("client_id", String(64), nullable=False),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("redirect_uri", String(2048), nullable=False),
    Column("scope", String(2048), nullable=False),
    Column("code_challenge", String(128), nullable=False),
    Column("nonce", String(512)),
    Column("auth_time", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("session_id", String(32)),  # once used: the session it began, to end it if the code comes again
    Index("authorization_codes_by_expiry", "expires_at"),
)

denials = Table(
    "denials",
    metadata,
    Column("kind", String(16), primary_key=True),  # session, subject, token
    Column("ident", String(512), primary_key=True),
    Column("denied_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    Column("token_id", String(32), primary_key=True),  # `jti` of a client's own token; others end with their session
    Column("expires_at", Double, nullable=False),
)

throttles = Table(
    "throttles",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Double, nullable=False),
    Column("blocked_until", Double, nullable=False),
    Index("throttles_by_age", "last_at"),
)
