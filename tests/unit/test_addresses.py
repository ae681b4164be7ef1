"""Addresses and origins as users write them, and what they are told when they are wrong."""

import pytest

from sidecar.addresses import Address, Origin, parse_address, parse_origin


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "[::1]:8080", "localhost:0", "unix:/run/agent.sock"])
def test_an_address_is_written_as_it_was_read(text):
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("sidecar.example:1", False),
    ],
)
def test_who_can_reach_it(text, loopback):
    assert parse_address(text).is_loopback is loopback


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:70000", "http://a:1", "unix:run", "a b:1"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="must be host:port"):
        parse_address(text)


def test_a_socket_path_has_a_bound():
    with pytest.raises(ValueError, match="at most 100"):
        parse_address("unix:/" + "x" * 101)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://api.openai.com", Origin("https", "api.openai.com", 443)),
        ("https://api.openai.com/", Origin("https", "api.openai.com", 443)),
        ("http://127.0.0.1:3000", Origin("http", "127.0.0.1", 3000)),
        ("http://[::1]:3000", Origin("http", "::1", 3000)),
    ],
)
def test_origins(text, origin):
    assert parse_origin(text) == origin
    assert parse_origin(str(origin)) == origin


@pytest.mark.parametrize("text", ["", "api.openai.com", "ftp://a", "https://", "http://a:99999", "http://u:p@a"])
def test_what_is_no_origin(text):
    with pytest.raises(ValueError, match="must be http"):
        parse_origin(text)


def test_a_path_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="base URL keeps it"):
        parse_origin("https://api.openai.com/v1")


def test_addresses_are_values():
    assert Address("127.0.0.1", 1) == parse_address("127.0.0.1:1")


@pytest.mark.parametrize(
    ("origin", "address", "same"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://localhost:8080", "127.0.0.1:8080", True),
        ("http://127.0.0.1:8080", "0.0.0.0:8080", True),
        ("http://agent.internal:8080", "agent.internal:8080", True),
        ("http://127.0.0.1:8081", "127.0.0.1:8080", False),
        ("http://agent.internal:8080", "127.0.0.1:8080", False),
        ("http://127.0.0.1:8080", "10.0.0.1:8080", False),
        ("http://127.0.0.1", "unix:/run/agent.sock", False),
    ],
)
def test_an_origin_that_is_a_listener(origin, address, same):
    assert parse_origin(origin).is_at(parse_address(address)) is same
