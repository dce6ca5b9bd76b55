"""The picture: how many times better than the peer, as bars on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from .harness import Record

__all__ = ["svg"]

_LEFT, _RIGHT, _TOP, _STEP, _THICK = 560, 90, 64, 26, 14
_WIDTH = 1120

_STYLE = """
  .ground { fill: #ffffff } text { fill: #1f2328; font: 12px system-ui, sans-serif }
  .title { font-size: 15px; font-weight: 600 } .soft { fill: #59636e }
  .grid { stroke: #d1d9e0; stroke-width: 1 } .one { stroke: #59636e; stroke-width: 1.5 }
  .pass { fill: #2da44e } .miss { fill: #cf222e } .none { fill: #8c959f }
  .bar { stroke: #1f2328; stroke-width: 2.5 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .soft { fill: #9198a1 }
    .grid { stroke: #30363d } .one { stroke: #9198a1 }
    .pass { fill: #3fb950 } .miss { fill: #f85149 } .none { fill: #6e7681 }
    .bar { stroke: #e6edf3 }
  }
"""


def _times(record: Record, ratio: float) -> float:
    """Return a ratio as how many times better than the peer."""
    return ratio if record["compare"] == "times" else 1 / ratio


def _limit(record: Record) -> float | None:
    """Return the bar as how many times better than the peer, or None."""
    bar = record.get("bar")
    if bar is None:
        return None
    if bar["of"] == "ratio":
        return _times(record, bar["limit"])
    over, under = bar["limit"], record["peer"]
    return float(over / under if record["unit"] == "1/s" else under / over)


def svg(report: dict[str, Any]) -> str:
    """Return the picture of a report; rows without figures are left out."""
    rows = [record for record in report["rows"] if "ours" in record]
    values = [_times(record, record["ratio"]) for record in rows]
    limits = [_limit(record) for record in rows]
    seen = [v for v in (*values, *limits, 1.0) if v is not None and 0 < v < math.inf]
    low, high = math.floor(math.log10(min(seen))), math.ceil(math.log10(max(seen)))
    high = max(high, low + 1)
    height = _TOP + _STEP * len(rows) + 40

    def x(value: float) -> float:
        share = (math.log10(min(max(value, 10.0**low), 10.0**high)) - low) / (high - low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    bottom = height - 32
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" '
        'aria-label="How many times better than its peers neotasker is">',
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{height}"/>',
        '<text class="title" x="16" y="26">Times better than the peer (time, memory, '
        "rate), logarithmic</text>",
        f'<text class="soft" x="16" y="46">{escape(str(report["interpreter"]))}; '
        "the tick is the bar to be reached</text>",
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        kind = "one" if power == 0 else "grid"
        out.append(f'<line class="{kind}" x1="{at}" y1="{_TOP - 6}" x2="{at}" y2="{bottom}"/>')
        label = f"{10.0**power:,g}×"
        out.append(
            f'<text class="soft" x="{at}" y="{bottom + 18}" text-anchor="middle">{label}</text>'
        )
    out += _bars(rows, values, limits, x)
    return "\n".join([*out, "</svg>", ""])


def _bars(
    rows: Sequence[Record], values: Sequence[float], limits: Sequence[float | None], x: Any
) -> list[str]:
    out = []
    for index, (record, value, limit) in enumerate(zip(rows, values, limits, strict=True)):
        y = _TOP + index * _STEP
        start, end = sorted((x(1.0), x(value)))
        kind = {"pass": "pass", "miss": "miss"}.get(record["state"], "none")
        words = f"{record['row']} · {record['against']}"
        if len(words) > 84:
            words = words[:83] + "…"
        out.append(
            f'<text x="{_LEFT - 12}" y="{y + 12}" text-anchor="end">'
            f"<title>{escape(record['row'])} against {escape(record['against'])}</title>"
            f"{escape(words)}</text>"
        )
        out.append(
            f'<rect class="{kind}" x="{start}" y="{y + 1}" '
            f'width="{max(1.0, end - start):.1f}" height="{_THICK}" rx="2"/>'
        )
        beside = end
        if limit is not None:
            at = x(limit)
            beside = max(end, at)
            out.append(
                f'<line class="bar" x1="{at}" y1="{y - 2}" x2="{at}" y2="{y + _THICK + 4}"/>'
            )
        text = f"{value:,.0f}×" if value >= 100 else f"{value:.3g}×"
        out.append(f'<text x="{beside + 6}" y="{y + 12}">{text}</text>')
    return out
