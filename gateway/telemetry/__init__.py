"""What an operator can see of a request afterwards: one typed record, one log line, one set of metrics.

`exchange` is the record that every step writes its facts into. `sample` is the plain-number form in which objects tell
their state to a scrape, `catalogue` says what each number means, and `metrics` counts requests and shows all workers as
one. `access_log` renders a line per request, `line_writer` gets it to a disk or a pipe without anybody waiting.
`health` says whether this gateway should receive traffic, `loop_monitor` whether anything blocks it. `runtime` is what
the processes of one gateway share, `process_log` is where the gateway's own words go.

Nothing here may import a part that handles requests: they are handed in as values.
"""
