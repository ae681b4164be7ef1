"""What the tests in a browser need: Chromium, from Debian or wherever the path leads, and axe-core, from npm.

As a program: 0 when Chromium is there. (Nothing heavy is imported here, since every run of the tests asks.)
"""

import shutil
import sys
from pathlib import Path

AXE = Path(__file__).resolve().parents[1] / "clients" / "node_modules" / "axe-core" / "axe.min.js"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_path() -> str | None:
    """The browser of this machine, if it has one."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def missing() -> list[str]:
    """What is not there, and so what cannot be tested."""
    return [
        *([] if chromium_path() else ["there is no Chromium"]),
        *([] if AXE.exists() else ["npm did not bring axe-core"]),
    ]


if __name__ == "__main__":
    sys.exit(chromium_path() is None)
