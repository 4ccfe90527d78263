"""The side-by-side benchmark: the gateway and its peers, one core each in turn, the same work, the same upstream.

Run it with ``python -m tests.benchmarks`` (``make bench``); ``--quick`` ends within a minute.

Read in this order: `works` says what is done, `peers` how every proxy is configured to do it, `site` how the processes
are laid out on the cores, `load` and `clients` who asks, `origin` who answers, `measure` what the operating system says
it cost, `targets` what it has to be, `steps` and `counting` where a request spends itself inside the gateway, `report`
and `chart` how it is shown.

Promises: loopback only; ephemeral ports; every process it starts it also stops; nothing is measured before a peer has
shown that it accepts a good token, passes the identity on, and refuses a forged, an expired and a foreign one.
"""
