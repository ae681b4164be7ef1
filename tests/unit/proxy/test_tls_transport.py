"""TLS on our side against OpenSSL itself on the other, in memory: every way in which the bytes may come, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.proxy.sockets import THROWN_AWAY_BYTES_MAX
from sidecar.proxy.tls import RenewedContext, client_files, server_files
from sidecar.proxy.tls_transport import TlsTransport

AUTHORITY = trustme.CA()


def server_context(name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return context


SERVER = server_context()
OURS = RenewedContext(client_context())


class Plain:
    """The event loop's transport of a connection: keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.calls: list[str] = []
        self.buffered = 0

    def write(self, data: bytes) -> None:
        assert "abort" not in self.calls
        self.written += data

    def is_closing(self) -> bool:
        return "abort" in self.calls or "close" in self.calls

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def __getattr__(self, name: str):
        return lambda *_: self.calls.append(name)


class Speaker(asyncio.Protocol):
    """What speaks on the connection: notes what it is told."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.told: list[object] = []

    def connection_made(self, transport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        assert data
        self.received.append(data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return True  # has no effect: there are no halves

    def connection_lost(self, exc) -> None:
        self.told.append(("lost", type(exc)))

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class Loop:
    """Time and turns, in the test's hands."""

    def __init__(self) -> None:
        self.soon: list[tuple] = []
        self.later: list[tuple] = []

    def call_soon(self, call, *arguments) -> None:
        self.soon.append((call, arguments))

    def call_later(self, seconds, call):
        self.later.append((seconds, call))
        return Handle(self, call)


class Handle:
    def __init__(self, loop: Loop, call) -> None:
        self.loop, self.call = loop, call

    def cancel(self) -> None:
        self.loop.later = [entry for entry in self.loop.later if entry[1] != self.call]


class Scene:
    """Our end and a peer; `exchange` carries bytes both ways until neither has more to say."""

    def __init__(self, *, context: ssl.SSLContext = SERVER, wrap=None, handshake_seconds: float | None = None) -> None:
        self.loop, self.plain, self.speaker = Loop(), Plain(), Speaker()
        make = wrap or OURS.to_origin("localhost")
        self.ours = TlsTransport(make, self.speaker, self.loop, handshake_seconds)  # type: ignore[arg-type]
        self.arrives, self.leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = context.wrap_bio(self.arrives, self.leaves, server_side=True)
        self.ours.connection_made(self.plain)  # type: ignore[arg-type]

    def exchange(self) -> Scene:
        for _ in range(4):
            self.arrives.write(bytes(self.plain.written))
            self.plain.written.clear()
            with contextlib.suppress(ssl.SSLWantReadError):
                self.peer.do_handshake()
            if self.leaves.pending:
                self.ours.data_received(self.leaves.read())
        return self

    def peer_reads(self) -> bytes:
        self.arrives.write(bytes(self.plain.written))
        self.plain.written.clear()
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while piece := self.peer.read(1 << 20):
                data += piece
        return data

    def peer_says(self, data: bytes) -> bytes:
        """Encrypted, to be delivered in whatever pieces."""
        sent = 0
        while sent < len(data):
            sent += self.peer.write(data[sent:])
        return self.leaves.read()

    def peer_ends(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self.peer.unwrap()
        return self.leaves.read()


@pytest.fixture
def scene() -> Scene:
    return Scene().exchange()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 70_000).map(lambda size: bytes([size % 251]) * size), max_size=5),
    st.lists(st.integers(0, 400_000), max_size=12),
)
def test_every_byte_arrives_however_records_and_pieces_lie(messages, cuts):
    scene = Scene().exchange()
    sent = b"".join(scene.peer_says(message) for message in messages)
    for piece in pieces(sent, cuts):
        scene.ours.data_received(piece)
    assert b"".join(scene.speaker.received) == b"".join(messages)
    for message in messages:
        scene.ours.write(message)
    assert scene.peer_reads() == b"".join(messages)
    assert scene.speaker.told == ["made"]


def test_what_arrives_in_one_piece_is_handed_on_in_one(scene):
    scene.ours.data_received(scene.peer_says(b"x" * 100_000))
    assert scene.speaker.received == [b"x" * 100_000]


def test_byte_by_byte():
    scene = Scene()
    for _ in range(4):
        scene.arrives.write(bytes(scene.plain.written))
        scene.plain.written.clear()
        with contextlib.suppress(ssl.SSLWantReadError):
            scene.peer.do_handshake()
        for byte in scene.leaves.read():
            scene.ours.data_received(bytes([byte]))
    for byte in scene.peer_says(b"hello"):
        scene.ours.data_received(bytes([byte]))
    assert scene.speaker.told == ["made"]
    assert scene.speaker.received == [b"hello"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_offered_again_until_the_context_is_renewed(version):
    context = server_context()
    context.maximum_version = version
    ours = RenewedContext(client_context())
    reused = []
    for renew in (False, False, True):
        if renew:
            ours.renew(client_context())
        scene = Scene(context=context)
        scene.ours = TlsTransport(ours.to_origin("localhost"), scene.speaker, scene.loop)  # type: ignore[arg-type]
        scene.plain.written.clear()
        scene.ours.connection_made(scene.plain)  # type: ignore[arg-type]
        scene.exchange()
        ours.remember(scene.ours.get_extra_info("ssl_object"))
        reused.append(scene.peer.session_reused)
    assert reused == [False, True, False]


def test_data_right_behind_the_handshake_waits_for_who_waits_for_the_handshake():
    context = RenewedContext(server_context())
    scene = Scene(wrap=context.to_client)
    scene.peer = client_context().wrap_bio(scene.arrives, scene.leaves, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        scene.peer.do_handshake()
    scene.ours.data_received(scene.leaves.read())
    scene.arrives.write(bytes(scene.plain.written))
    scene.plain.written.clear()
    scene.peer.do_handshake()
    scene.peer.write(b"GET")
    scene.ours.data_received(scene.leaves.read())
    assert (scene.speaker.told, scene.speaker.received) == (["made"], [])
    ((call, arguments),) = scene.loop.soon
    call(*arguments)
    assert scene.speaker.received == [b"GET"]


# Ends


def test_a_farewell_is_an_end_and_is_answered(scene):
    scene.ours.data_received(scene.peer_says(b"last") + scene.peer_ends())
    assert scene.speaker.received == [b"last"]
    assert scene.speaker.told == ["made", "eof"]
    scene.arrives.write(bytes(scene.plain.written))
    scene.peer.unwrap()  # ours is there
    assert scene.plain.calls == ["close"]
    scene.ours.connection_lost(None)
    assert scene.speaker.told[-1] == ("lost", type(None))


def test_an_end_without_a_farewell_is_no_end(scene):
    scene.ours.data_received(scene.peer_says(b"half of it"))
    assert not scene.ours.eof_received()
    assert scene.ours.is_closing()
    scene.ours.connection_lost(None)
    assert scene.speaker.told == ["made", ("lost", type(None))]


def test_our_farewell_comes_behind_what_was_written_and_waits_for_the_answer(scene):
    scene.ours.write(b"last")
    scene.ours.close()
    assert scene.peer_reads() == b"last"
    scene.ours.data_received(scene.peer_says(b"never read"))
    assert scene.plain.calls == ["resume_reading"]
    scene.peer.unwrap()
    scene.ours.data_received(scene.leaves.read())
    assert scene.plain.calls == ["resume_reading", "close"]
    assert scene.speaker.received == []
    assert scene.loop.later == []


def test_a_peer_that_never_answers_our_farewell_is_cut_once_it_has_taken_all(scene):
    scene.ours.write(b"x" * 1_000_000)
    scene.plain.buffered = 500_000
    scene.ours.close()
    for buffered in (400_000, 100_000):
        scene.plain.buffered = buffered
        ((_, call),) = scene.loop.later
        scene.loop.later.clear()
        call()
        assert "abort" not in scene.plain.calls
    scene.plain.buffered = 0
    ((_, call),) = scene.loop.later
    call()
    assert "abort" in scene.plain.calls


@pytest.mark.parametrize("then", ["open", "over"])
def test_a_peer_that_sends_very_much_behind_our_farewell_is_read_on_later(scene, then):
    scene.ours.close()
    ((_, farewell),) = scene.loop.later
    taken = 0
    for _ in range(2):
        scene.plain.calls.clear()
        begun = taken
        while not scene.plain.calls:
            piece = scene.peer_says(bytes(1 << 20))
            scene.ours.data_received(piece)
            taken += len(piece)
            assert taken - begun < THROWN_AWAY_BYTES_MAX + (2 << 20)
        assert taken - begun > THROWN_AWAY_BYTES_MAX
        assert scene.plain.calls == ["pause_reading"]
        (rested,) = (call for _, call in scene.loop.later if call != farewell)
        if then == "over":
            farewell()
        rested()
        scene.loop.later = [(5.0, farewell)]
        assert scene.plain.calls[1:] == (["resume_reading"] if then == "open" else ["abort"])
        if then == "over":
            return


def test_a_record_that_was_touched_ends_the_connection_and_what_came_before_it_counts(scene):
    good, bad = scene.peer_says(b"good"), bytearray(scene.peer_says(b"bad"))
    bad[-1] ^= 1
    scene.ours.data_received(good + bytes(bad))
    assert scene.speaker.received == [b"good"]
    assert scene.plain.calls[-1] == "abort"
    scene.arrives.write(bytes(scene.plain.written))
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):  # an alert told the peer
        scene.peer.read(1)
    scene.ours.write(b"nothing more")
    scene.ours.connection_lost(None)
    assert scene.speaker.told == ["made", ("lost", ssl.SSLError)]


@pytest.mark.parametrize("name", ["elsewhere", ""])
def test_a_handshake_that_fails_tells_both_sides_why(name):
    other = server_context(name or "localhost")
    if not name:  # an authority that we do not know
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost").configure_cert(other)
    scene = Scene(context=other)
    scene.arrives.write(bytes(scene.plain.written))
    scene.plain.written.clear()
    with pytest.raises(ssl.SSLWantReadError):
        scene.peer.do_handshake()
    scene.ours.data_received(scene.leaves.read())
    assert scene.plain.calls == ["abort"]
    scene.arrives.write(bytes(scene.plain.written))
    with pytest.raises(ssl.SSLError, match="ALERT"):
        scene.peer.do_handshake()
    scene.ours.connection_lost(None)
    assert scene.speaker.told == []
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(scene.ours.handshake())


def test_a_connection_that_ends_within_the_handshake():
    scene = Scene()
    assert not scene.ours.eof_received()
    scene.ours.connection_lost(None)
    assert scene.speaker.told == []
    with pytest.raises(ConnectionResetError):
        asyncio.run(scene.ours.handshake())


def test_a_handshake_that_takes_too_long():
    scene = Scene(handshake_seconds=7.0)
    ((seconds, call),) = scene.loop.later
    assert seconds == 7.0
    call()
    assert scene.plain.calls == ["abort"]
    assert Scene(handshake_seconds=7.0).exchange().loop.later == []


def test_the_buffer_is_the_plain_transports(scene):
    scene.ours.set_write_buffer_limits(9, 3)
    scene.ours.pause_writing()
    scene.ours.resume_writing()
    scene.ours.pause_reading()
    scene.ours.resume_reading()
    assert scene.speaker.told == ["made", "pause", "resume"]
    assert scene.plain.calls == ["set_write_buffer_limits", "pause_reading", "resume_reading"]
    assert not scene.ours.can_write_eof()


def test_another_protocol_takes_over(scene):
    other = Speaker()
    scene.ours.set_protocol(other)
    scene.ours.data_received(scene.peer_says(b"tunnelled"))
    scene.ours.abort()
    scene.ours.connection_lost(ConnectionResetError())
    assert (scene.speaker.received, other.received) == ([], [b"tunnelled"])
    assert other.told == [("lost", ConnectionResetError)]


def test_nothing_is_renegotiated(tmp_path):
    own = tmp_path / "own.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(own))
    for files in (client_files(), server_files(str(own))):
        assert files.context.latest.options & ssl.OP_NO_RENEGOTIATION
