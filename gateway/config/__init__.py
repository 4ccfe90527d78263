"""One YAML file: its models (`schema`), its reading with every problem named (`load`), its changes while running (`watch`).

`schema` stands at the bottom of the house and imports nothing of ours; `load` adds the checks that need to understand routes.
"""
