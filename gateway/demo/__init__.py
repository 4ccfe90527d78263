"""`gateway demo`: a backend and the gateway with its own issuer on this machine, to see it work before reading on.

`stage` starts them and takes them down, `echo` is the backend, `mailbox` prints what would be sent as mail.
Everything stands on loopback and in a temporary folder; nothing is left behind.
"""

from gateway.demo.stage import run_demo

__all__ = ["run_demo"]
