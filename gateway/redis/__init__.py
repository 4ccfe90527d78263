"""Speaking to Redis: where its servers are, which of them are masters, and one connection to one of them.

`address` takes a URL apart, `topology` asks for the masters, `link` is a connection, `slots` says which master has a
key, `redirection` reads the answer of one that has it no more, and `masters` sends a command to whoever has its key.
What is kept there is the affair of others.
"""
