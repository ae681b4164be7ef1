"""Bars of a chart as numbers; the template draws them. No script: it prints, and a screen reader gets a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEIGHT, BOTTOM, TOP = 240, 24, 8  # pixels
_GAP = 0.28  # of a bar's place


def stacked(days: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Mapping[str, Any]:
    """Days with counts by class → what `days.html` draws: bars in pieces, lines at round numbers, what it all says.

    Across, everything is in percent, so that the chart has the width of its page while its texts keep their size;
    down, it is in pixels.
    """
    most = max((sum(day[one] for one in classes) for day in days), default=0)
    step = _step(most)
    top = max(step, -(-most // step) * step)
    tall = HEIGHT - BOTTOM - TOP
    place = 100 / max(1, len(days))
    bars = []
    for number, day in enumerate(days):
        y = float(HEIGHT - BOTTOM)
        pieces = []
        for one in classes:
            height = day[one] / top * tall
            y -= height
            if day[one]:
                pieces.append({"id": one, "y": round(y, 2), "height": round(height, 2)})
        date = int(str(day["day"])[-2:])
        parts = ", ".join(f"{day[one]} {one.replace('_', ' ')}" for one in classes if day[one])
        bars.append(
            {
                "x": round((number + _GAP / 2) * place, 2),
                "middle": round((number + 0.5) * place, 2),
                "width": round(place * (1 - _GAP), 2),
                "pieces": pieces,
                "label": str(date) if date == 1 or date % 5 == 0 else "",
                "saying": f"{day['day']}: {parts or 'nothing'}",
            }
        )
    lines = [{"y": round(HEIGHT - BOTTOM - value / top * tall, 2), "value": value} for value in range(0, top + 1, step)]
    return {"height": HEIGHT, "bars": bars, "lines": lines, "saying": f"at most {most} on one day"}


def _step(most: int) -> int:
    """A round distance that makes two to five lines."""
    size = 1
    while True:
        for step in (size, 2 * size, 5 * size):
            if most <= step * 5:
                return step
        size *= 10
