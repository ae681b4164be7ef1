"""A task that lost its CancelledError still knows that it was told to stop."""

import asyncio
import contextlib

from sidecar.tasks import told_to_stop


async def test_a_swallowed_cancellation_is_still_known():
    rounds = 0

    async def loop_with_a_library_that_swallows():
        nonlocal rounds
        while not told_to_stop():
            rounds += 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    task = asyncio.create_task(loop_with_a_library_that_swallows())
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert rounds == 1


def test_outside_a_task_nobody_was_told():
    async def in_a_task():
        return told_to_stop()

    assert asyncio.run(in_a_task()) is False
