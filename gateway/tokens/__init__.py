"""Credentials: from the bytes of a request to a verified `Token`.

In request order: `bearer` finds the raw token, `cache` remembers tokens whose signature held, `claims` reads header and
claims strictly, `verifier` decides. A `Token` is made by the verifier only, after the signature held; what is not yet
verified carries that in its name. Everything wrong is a leaf of `gateway.errors`; its cause never quotes the token.
Imports `keys` and what lies beneath.
"""
