"""Which route a request belongs to: decided on the raw path, once, before anything else is looked at.

    ambiguity   what a raw path may mean to the servers behind us: plain, ambiguous, or never acceptable
    pattern     the patterns of routes: parsed, ordered by specificity, checked against each other
    table       all routes compiled: host, then path, then method

The promise: the route whose policy is enforced is the route that the upstream serves. A path that two servers could
read as two different ones is refused, and what is forwarded is byte for byte what was matched. Nothing here knows
what a route leads to.
"""
