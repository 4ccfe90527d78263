"""The command `gateway`: serve · check · routes · explain · revoke · denylist · users · keys · demo ·
schema.

Exit status: 0 done; 1 failed while running (for `explain`: the request is refused); 2 bad usage or configuration.

    parser       every command's arguments, and `main`, which runs one
    command      what commands share: how they are described, how they read the file, what they end with

The other modules are the commands: each says its arguments in an `add_…`, and is one function of them once they are
parsed. What a command needs is imported when it runs, so `check` stays quick.
"""

from gateway.cli.parser import build_parser, main

__all__ = ["build_parser", "main"]
