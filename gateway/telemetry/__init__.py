"""What an operator can see of a request afterwards: one typed record, one log line, one set of metrics.

`exchange` is the record that every step writes its facts into. `sample` is the plain-number form in which objects tell their
state to a scrape. `access_log` and `metrics` render them; `health` says whether this gateway should receive traffic.
Nothing here may import a part that handles requests: they are handed in as values.
"""
