"""The pictures of the console in the docs: `make screenshots`. Taken of the company ledger, always the same one."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from browsing import PHONE, chromium, visiting
from company import company

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
BYTES_MAX = 150_000
# A machine without a desktop has no font of its interface: one that looks like those of most.
FONTS = """<?xml version="1.0"?>
<fontconfig>
  <include>/etc/fonts/fonts.conf</include>
  <match><test name="family"><string>DejaVu Sans</string></test>
  <edit name="family" mode="assign" binding="strong"><string>Liberation Sans</string></edit></match>
</fontconfig>
"""


@dataclass(frozen=True)
class Picture:
    """`page` may have names in it, as in `PAGES`; `height` is what is seen of it without scrolling."""

    name: str
    page: str
    height: int = 900
    dark: bool = False
    phone: bool = False

    @property
    def options(self) -> dict[str, Any]:
        size = PHONE if self.phone else {"width": 1280, "height": self.height}
        return {"viewport": size, "color_scheme": "dark" if self.dark else "light", "reduced_motion": "reduce"}


PICTURES = (
    Picture("overview", "/?period=2026-11", 860),
    Picture("overview-dark", "/?period=2026-11", 860, dark=True),
    Picture("overview-phone", "/?period=2026-11", phone=True),
    Picture("customers", "/customers?period=2026-11", 560),
    Picture("invoice", "/customers/{id}/invoice?period=2026-11", 945),
    Picture("sessions", "/sessions", 620),
    Picture("session", "/sessions/{id}", 990),
    Picture("decisions", "/decisions", 580),
    Picture("plan-difference", "/plans/{id}/compare", 680),
    Picture("backtest", "/plans/{id}/backtest/{run}", 620),
    Picture("exports", "/exports?period=2026-11", 1010),
)


async def take(folder: Path, only: list[str]) -> None:
    """Write the pictures, or some by name; fails when a page complains or a picture is too heavy."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        fonts = Path(scratch) / "fonts.conf"
        fonts.write_text(FONTS)
        async with company(Path(scratch)) as server, chromium(FONTCONFIG_FILE=str(fonts)) as browser:
            for one in PICTURES:
                if only and one.name not in only:
                    continue
                async with visiting(browser, server.url, **one.options) as window:
                    answer = await window.open(server.address(one.page))
                    assert answer.status == 200, one.name
                    target = folder / f"console-{one.name}.png"
                    await window.page.screenshot(path=target, full_page=False)
                    await window.demand_calm()
                    assert target.stat().st_size <= BYTES_MAX, f"{target} has {target.stat().st_size} bytes"


if __name__ == "__main__":
    asyncio.run(take(FOLDER, sys.argv[1:]))
