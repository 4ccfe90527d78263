"""The chart of a run as SVG: CPU per request of every proxy, one panel a work, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from tests.benchmarks import peers
from tests.benchmarks.works import Result

_PANELS = {
    "warm-ES256": "Warm, ES256",
    "warm-RS256": "Warm, RS256",
    "cold-ES256": "Cold, ES256",
    "cold-RS256": "Cold, RS256",
}
_WIDTH, _LABEL, _BAR, _ROW, _HEAD = 800, 220, 440, 24, 42
_GATEWAY, _PEER, _FLOOR = "#d9480f", "#5c7cfa", "#868e96"


def draw(results: Mapping[str, Result]) -> str:
    """The SVG document; panels without figures are left out.

    Every panel has the same scale, that of the slowest proxy except the naive one, whose bar is cut and says so.
    """
    panels = [(title, results[key]) for key, title in _PANELS.items() if key in results and results[key].rows]
    scale = max((_cpu(result, row) for _, result in panels for row in result.rows if row != "naive"), default=1.0)
    body: list[str] = []
    top = 52
    for title, result in panels:
        body.append(_text(16, top + 18, title, weight="bold"))
        rows = [peer for peer in peers.ALL if peer.name in result.rows]
        for number, peer in enumerate(rows):
            body += _bar(top + _HEAD - 14 + number * _ROW, peer.name, peer.title, _cpu(result, peer.name), scale)
        top += _HEAD + len(rows) * _ROW
    head = _text(16, 26, "CPU per checked request, µs (one core; less is better)", size=16, weight="bold")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 8}" width="{_WIDTH}" role="img" '
        f'aria-label="CPU per request of each proxy">\n'
        "<style>text{font-family:system-ui,sans-serif;fill:#212529}"
        "@media(prefers-color-scheme:dark){text{fill:#e9ecef}}</style>\n" + "\n".join([head, *body]) + "\n</svg>\n"
    )


def _bar(top: int, name: str, title: str, value: float, scale: float) -> list[str]:
    colour = {"gateway": _GATEWAY, "nginx": _FLOOR}.get(name, _PEER)
    is_cut = value > scale
    length = _BAR if is_cut else max(1.0, value / scale * _BAR)
    shown = f"{value:,.0f}" + (" (bar cut)" if is_cut else "")
    return [
        _text(_LABEL - 8, top + 13, title, anchor="end", weight="bold" if name == "gateway" else "normal"),
        f'<rect x="{_LABEL}" y="{top}" width="{length:.1f}" height="{_ROW - 6}" rx="2" fill="{colour}"/>',
        _text(_LABEL + length + 6, top + 13, shown),
    ]


def _text(x: float, y: float, text: str, size: int = 13, weight: str = "normal", anchor: str = "start") -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(text)}</text>'


def _cpu(result: Result, row: str) -> float:
    return result.middle(row, "cpu_us")
