"""A port on which nobody listens, for as long as a test needs that to be so."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port that refuses connections and that no other test is given meanwhile.

    Bound and not listening: a number that is merely free at the moment may be somebody's listener a moment later. Who
    names the port and sets SO_REUSEADDR, as servers do, can still listen there.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
