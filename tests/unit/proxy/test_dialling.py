"""Which address is tried when, and when an address of a name is gone."""

from __future__ import annotations

import asyncio
import socket

import pytest
from ports import held_port

from sidecar.proxy import dialling
from sidecar.proxy.dialling import Addresses, connect, first_of, in_turns

V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)


def test_families_take_turns_beginning_with_the_resolvers_choice():
    found = [(V6, ("a",)), (V6, ("b",)), (V6, ("c",)), (V4, ("d",))]
    assert [where[0] for _, where in in_turns(found)] == ["a", "d", "b", "c"]
    assert [where[0] for _, where in in_turns(found[::-1])] == ["d", "c", "b", "a"]
    assert len(in_turns([(V4, (str(number),)) for number in range(100)])) == 8


class Attempts:
    """Attempts that fail, succeed or hang, and the order in which they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []

    def make(self, name: str):
        async def attempt() -> str:
            self.begun.append(name)
            if name.startswith("fails"):
                raise ConnectionRefusedError(name)
            if name.startswith("hangs"):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancelled.append(name)
                    raise
            return name

        return attempt

    async def race(self, *names: str, stagger: float = 0.01):
        async with asyncio.timeout(20):
            return await first_of([self.make(name) for name in names], stagger)


@pytest.fixture
def attempts():
    return Attempts()


async def test_the_first_that_answers_wins_and_later_ones_never_begin(attempts):
    assert await attempts.race("one", "two", stagger=20.0) == ("one", [])
    assert attempts.begun == ["one"]


async def test_a_failure_begins_the_next_at_once(attempts):
    assert (await attempts.race("fails", "two", stagger=1000.0))[0] == "two"


async def test_an_address_that_swallows_packets_does_not_hold_up_the_others(attempts):
    assert (await attempts.race("hangs 1", "hangs 2", "fails", "four"))[0] == "four"
    await asyncio.sleep(0)
    assert set(attempts.cancelled) == {"hangs 1", "hangs 2"}


async def test_when_all_fail_the_first_reason_is_given(attempts):
    with pytest.raises(ConnectionRefusedError, match="fails 1"):
        await attempts.race("fails 1", "fails 2")
    with pytest.raises(OSError, match="no address"):
        await attempts.race()


async def test_a_race_that_is_given_up_leaves_nothing_running(attempts):
    race = asyncio.ensure_future(attempts.race("hangs 1", "hangs 2"))
    while len(attempts.begun) < 2:
        await asyncio.sleep(0)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    await asyncio.sleep(0)
    assert set(attempts.cancelled) == {"hangs 1", "hangs 2"}


async def test_sockets_race_too():
    with socket.create_server(("127.0.0.1", 0)) as listener, held_port() as port:
        nobody = ("127.0.0.1", port)
        sock = await connect([(V4, nobody), (V4, listener.getsockname())])
        assert sock.getpeername() == listener.getsockname()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()
        with pytest.raises(ConnectionRefusedError):
            await connect([(V4, nobody)] * 3)


async def test_names_are_resolved():
    assert (V4, ("127.0.0.1", 80)) in await dialling.resolve("127.0.0.1", 80)
    with pytest.raises(OSError):
        await dialling.resolve("nowhere.invalid", 80)


def test_an_address_is_gone_after_three_look_ups_without_it():
    addresses = Addresses()
    assert not addresses.lack("a")
    for found in (["a", "b"], ["b"], [], ["b"]):
        addresses.found(found)
        assert not addresses.lack("a")
    addresses.found(["b", "c"])
    assert addresses.lack("a")
    assert not addresses.lack("b")
    addresses.found(["a"])
    assert not addresses.lack("a")
