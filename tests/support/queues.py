"""A ring with its writer and its reader in one process."""

from __future__ import annotations

from sidecar.wire.records import Kind
from sidecar.wire.ring import RingReader, RingWriter
from sidecar.wire.status import Slot

CAPACITY = 64 * 1024
HEAD_BYTES = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"


class Queue:
    def __init__(self, path, **options):
        options = {"body_bytes_max": 1 << 20} | options
        self.path = str(path)
        self.writer = RingWriter(self.path, CAPACITY, **options)
        self.reader = RingReader(self.path)

    def drain(self):
        records = []
        while got := self.reader.read(1 << 20):
            records += got
        self.reader.release(self.reader.position)
        return records

    def counts(self):
        slots = (Slot.RECORDS_DROPPED, Slot.RECORD_BYTES_DROPPED, Slot.EXCHANGES_DROPPED, Slot.BODIES_CUT)
        return tuple(self.writer.status.get(slot) for slot in slots)

    def close(self):
        self.writer.close()
        self.reader.close()


def shown(records):
    return [(Kind(record.kind).name, record.payload) for record in records]
