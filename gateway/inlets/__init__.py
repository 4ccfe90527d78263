"""Standard ways in which issuers and clients revoke: each message becomes entries of the one denylist.

    POST <endpoints>/<issuer>/revoke               RFC 7009: a client hands in a token          `revoke`
    POST <endpoints>/<issuer>/backchannel-logout   OpenID Back-Channel Logout 1.0               `logout`
    POST <endpoints>/<issuer>/events               Shared Signals: CAEP, RISC (RFC 8417, 8935)  `events`, `subjects`

A plugin of the clients' listener: `mount` takes the exact paths that the configuration names and hands everything else
on. A message is believed because of a client's password or an issuer's signature, never because of where it came from;
it is acknowledged once the store has what follows from it; bad input gets the error that its standard names. No part of
a token reaches the log. Imports `tokens` and what lies beneath, never `pipeline`.
"""
