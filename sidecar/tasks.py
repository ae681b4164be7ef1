"""One thing about asyncio that every endless loop has to know."""

from __future__ import annotations

import asyncio


def told_to_stop() -> bool:
    """Whether the running task was cancelled.

    A `CancelledError` can get lost in a library that cleans up a connection at the same moment; the request to stop
    stays with the task (`Task.cancelling`, Python 3.11), so an endless loop asks for it instead of trusting the error.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
