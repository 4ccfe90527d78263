"""Speaking to Redis: where its servers are, which of them are masters, and one connection to one of them.

`address` takes a URL apart, `topology` asks for the masters, `link` is a connection, `slots` says which master has a
key. What is kept there is the affair of others.
"""
