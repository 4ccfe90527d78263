"""Writes the generated parts of the documentation anew: `python -m tests.write_docs`.

The table of settings, the table of metrics, and the editor's schema. `tests/test_docs.py` and
`tests/config/test_reference.py` notice when that has been forgotten.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from gateway.config.reference import json_schema, markdown
from gateway.telemetry.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]


def metrics_table() -> str:
    """Every metric, in the catalogue's order."""
    lines = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for name, metric in CATALOGUE.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        lines.append(f"| `{name}` | {metric.type} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"


TABLES = {
    ("docs/configuration.md", "settings"): markdown,
    ("docs/metrics.md", "metrics"): metrics_table,
}
"""Page and mark → what stands between `<!-- mark … -->` and `<!-- end of mark -->`."""


def between(mark: str) -> re.Pattern[str]:
    """Matches start mark, content and end mark as three groups."""
    return re.compile(rf"^(<!-- {mark}\b.*?-->\n)(.*?)(^<!-- end of {mark} -->$)", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Writes all of it."""
    for (page, mark), table in TABLES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        found = between(mark).search(text)
        assert found is not None, f"{page} has lost its marks"
        written = f"{text[: found.start(2)]}{table()}\n{text[found.end(2) :]}"
        (ROOT / page).write_text(written, encoding="utf-8")
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (ROOT / "config/gateway.schema.json").write_text(schema, encoding="utf-8")


if __name__ == "__main__":
    main()
