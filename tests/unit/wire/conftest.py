"""A ring that a test writes and reads."""

from __future__ import annotations

import pytest
from queues import Queue

from sidecar.wire.records import Kind


@pytest.fixture
def make(tmp_path):
    """A factory of rings in one file, each read up to its writer's START; all are closed at the end."""
    made = []

    def build(**options):
        queue = Queue(tmp_path / "queue", **options)
        made.append(queue)
        assert [record.kind for record in queue.drain()] == [Kind.START]
        return queue

    yield build
    for queue in made:
        queue.close()
