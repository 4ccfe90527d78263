"""`gateway demo`: a backend, a throwaway issuer and the gateway on this machine, to see it work before reading on.

`stage` starts the three and takes them down, `echo` is the backend, `issuer` signs tokens with a key that lives as long
as the demo. Everything stands on loopback and in a temporary folder; nothing is left behind.
"""

from gateway.demo.stage import run_demo

__all__ = ["run_demo"]
