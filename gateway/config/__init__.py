"""One YAML file: its models, its reading with every problem named, its changes while running.

    quantities   durations and sizes as people write them
    values       names, addresses, header names and paths: text with a grammar
    schema       the models, a module for each section: every key, its type, its default
    issuance     those of the `issuer` section
    document     YAML text → plain values that know their line and column, by way of `nodes` and `scalars`
    redaction    what of the text must never be shown
    checks       what needs two places of the file at once: references, ties, files that must exist
    load         all of it in one run: a `Config`, or every problem with its place and its remedy
    reference    the models as a JSON Schema for editors and as a table for the manual
    watch        notices that the file has changed

`schema` and what it uses stand at the bottom of the house and import nothing else of ours; `load` and `checks` may
import `routing`, because only it knows which routes tie.
"""
