"""Figures as pictures: plain SVG, readable on light and on dark ground, with nothing to install."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from bench.rows import Row

_WIDTH = 860
_NAMES = 300
"""Width of the names' column."""
_ROW = 26
_HEAD = 64
_FOOT = 44
_MARGIN = 64
"""Room at the right for a bar's own label."""
_STYLE = """
  .ground { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, "Segoe UI", sans-serif }
  .title { font-size: 16px; font-weight: 600 } .soft { fill: #59636e; font-size: 12px }
  .better { fill: #1a7f64 } .worse { fill: #bc4c00 } .grid { stroke: #d1d9e0 } .one { stroke: #1f2328 }
  .line { fill: none; stroke: #0969da; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .soft { fill: #9198a1 }
    .better { fill: #3fb995 } .worse { fill: #f0883e } .grid { stroke: #30363d } .one { stroke: #e6edf3 }
    .line { stroke: #58a6ff }
  }
"""


def bars(rows: Sequence[Row], title: str) -> str:
    """One bar a row that has a ratio, on a logarithmic axis: to the right of 1 is better than the baseline."""
    shown = [(row, row.ratio) for row in rows if row.ratio is not None and row.ratio > 0]
    ratios = [ratio for _, ratio in shown]
    lowest = min(-1, math.floor(math.log10(min(ratios, default=1))))
    highest = max(1, math.ceil(math.log10(max(ratios, default=1))))
    height = _HEAD + _ROW * len(shown) + _FOOT

    def at(ratio: float) -> float:
        return _NAMES + (_WIDTH - _NAMES - _MARGIN) * (math.log10(ratio) - lowest) / (highest - lowest)

    bottom = _HEAD + _ROW * len(shown)
    parts = [_text(16, 26, title, "title"), _text(16, 46, "to the right of 1 is better than the baseline", "soft")]
    for power in range(lowest, highest + 1):
        x = at(10.0**power)
        parts.append(_line(x, _HEAD - 6, bottom + 6, "one" if power == 0 else "grid"))
        parts.append(_text(x, bottom + 24, f"{10.0**power:g}", "soft", "middle"))
    for place, (row, ratio) in enumerate(shown):
        top, middle = _HEAD + _ROW * place, _HEAD + _ROW * place + _ROW / 2
        left, right = sorted((at(1), at(ratio)))
        colour = "better" if ratio >= 1 else "worse"
        parts.append(_text(_NAMES - 12, middle + 4, row.name, "", "end"))
        parts.append(
            f'<rect class="{colour}" x="{left:.1f}" y="{top + 5}" width="{max(1.0, right - left):.1f}"'
            f' height="{_ROW - 10}" rx="2"/>'
        )
        parts.append(_text(right + 6, middle + 4, f"{ratio:.3g}", "soft"))
    return _svg(_WIDTH, height, parts)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """A small picture for each series of (minute, value), each on its own axis from zero."""
    across, wide, tall = 3, 280, 112
    height = _HEAD + tall * -(-len(series) // across) + 16
    parts = [_text(16, 26, title, "title"), _text(16, 46, "each from zero to its own maximum, over minutes", "soft")]
    for place, (name, points) in enumerate(series.items()):
        left, top = 16 + wide * (place % across), _HEAD + tall * (place // across)
        minutes = max((minute for minute, _ in points), default=0) or 1
        most = max((value for _, value in points), default=0) or 1
        path = " ".join(
            f"{left + (wide - 40) * minute / minutes:.1f},{top + 86 - 60 * value / most:.1f}"
            for minute, value in points
        )
        parts += [
            _text(left, top + 12, name),
            _text(left + wide - 40, top + 12, _short(most), "soft", "end"),
            f'<line class="grid" x1="{left}" y1="{top + 86}" x2="{left + wide - 40}" y2="{top + 86}"/>',
            f'<polyline class="line" points="{path}"/>',
        ]
    return _svg(_WIDTH, height, parts)


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    of = f' class="{css}"' if css else ""
    return f'<text{of} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x: float, top: float, bottom: float, css: str) -> str:
    return f'<line class="{css}" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>'


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f'<style>{_STYLE}</style>\n<rect class="ground" width="{width}" height="{height}"/>\n{body}\n</svg>\n'
    )
