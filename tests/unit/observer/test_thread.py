"""What texts tell: calls that follow one another have a digest in common, all others have none."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observer.apis.call import Call, ToolCall, Turn
from sidecar.observer.observation import Thread
from sidecar.observer.thread import ANSWERS_MAX, KEY_HEADERS, caller_of, read_thread

HASH_KEY = b"k" * 32
KEY = {"authorization": "Bearer sk-1"}
LONG = "This is what the invoice of March says, line by line"


@pytest.fixture
def thread(wire):
    def read(*turns: Turn, reply: str = "", headers: dict[str, str] = KEY, path: str = "/", **fields: Any) -> Thread:
        tenant, hash_key = fields.pop("tenant", "acme"), fields.pop("hash_key", HASH_KEY)
        listener = fields.pop("listener", 0)
        call = Call(
            fields.pop("api", "openai.chat"),
            turns=turns,
            reply=reply,
            completed=fields.pop("completed", True),
            **fields,
        )
        return read_thread(tenant, hash_key, wire.exchange(wire.post(path, b"", headers), listener=listener), call)

    return read


def user(text: str, *media: str) -> Turn:
    return Turn("user", text, media)


def said(text: str) -> Turn:
    return Turn("assistant", text)


SYSTEM, TOOL = Turn("system", "You help."), Turn("tool", "42")


def test_the_next_call_follows_what_this_one_reached(thread) -> None:
    first = thread(SYSTEM, user("Hi"), reply="Hello.")
    second = thread(SYSTEM, user("Hi"), said("Hello."), user("My invoice"), reply=LONG)
    third = thread(user("Hi"), said("Hello."), user("My invoice"), said(LONG), user("yes"))
    assert (first.follows, first.recalls, first.answers) == ("", (), ())
    assert second.follows == first.reaches
    assert third.follows == second.reaches
    assert third.answers[0] == second.makes
    assert len({first.reaches, second.reaches, third.reaches}) == 3


def test_system_prompts_and_white_space_and_the_pieces_of_an_answer_do_not_count(thread) -> None:
    reached = thread(Turn("system", "It is noon."), user("Hi\n"), reply="One. Two.").reaches
    assert thread(user("Hi"), said("One."), said(" Two.\n"), user("yes")).follows == reached
    assert thread(user("Hi"), said("One"), user("yes")).follows != reached


def test_a_request_sent_again_is_the_same_and_any_other_is_not(thread) -> None:
    asked = thread(user("Hi"), completed=False)
    assert asked.reaches == ""
    assert asked.makes == ()
    assert thread(SYSTEM, user("Hi"), reply="Hello.").asked == asked.asked
    others = [(user("Hi"), user("Hi")), (user("Hi", "image"),), (user("Hi"), said("Hello."), user("Hi")), (said("Hi"),)]
    assert len({asked.asked, *(thread(*turns).asked for turns in others)}) == 5


def test_tool_calls_without_text(thread) -> None:
    first = thread(user("Hi"), tool_calls=(ToolCall("call_0", "look", {}),))
    shown = thread(user("Hi"), said(""), TOOL, reply="Found.")  # as chat APIs have it
    items = thread(user("Hi"), TOOL, TOOL, reply="Found.")  # as Responses has it
    assert shown.follows == items.follows == first.reaches
    assert shown.asked == items.asked != thread(user("Hi")).asked
    assert thread(user("Hi"), said(""), TOOL, said("Found."), user("yes")).follows == shown.reaches


def test_a_trimmed_history_is_known_by_its_last_answers(thread) -> None:
    before = thread(user("Hi"), said("Hello."), user("My invoice, please"), reply=LONG)
    pair, alone = before.makes
    assert thread(user("My invoice, please"), said(LONG), user("yes")).answers == ((pair, alone),)
    assert thread(user("A summary."), said(LONG), user("yes")).answers[0][1] == alone
    assert before.asked in thread(user("Hi"), said("Hello."), user("My invoice, please"), said("…"), user("?")).recalls


def test_texts_that_anybody_says_tell_nothing_alone(thread) -> None:
    assert thread(user("Hi"), reply="Hello.").makes == ()
    after = thread(user("Hi"), said("Hello."), user("My invoice"))
    assert (after.recalls, after.answers) == ((), ())


def test_an_answer_whose_beginning_was_given(thread) -> None:
    reached = thread(user("As JSON, please"), said('{"'), reply='a": 1}')
    assert reached.follows == ""
    assert thread(user("As JSON, please"), said('{"a": 1}'), user("yes")).follows == reached.reaches


def test_what_is_recalled_is_bounded_and_the_newest_comes_first(thread) -> None:
    turns = [turn for n in range(50) for turn in (user(f"question number {n}"), said(f"{LONG} {n}"))]
    whole = thread(*turns, user("yes"))
    assert len(set(whole.recalls)) == ANSWERS_MAX
    assert [len(answer) for answer in whole.answers] == [2] * ANSWERS_MAX
    assert len({digest for answer in whole.answers for digest in answer}) == 2 * ANSWERS_MAX
    newest = thread(*turns[:-1], reply=f"{LONG} 49")
    assert (whole.recalls[0], whole.answers[0]) == (newest.asked, newest.makes)


def test_equal_texts_under_different_keys_never_meet(thread) -> None:
    def digests(**fields: Any) -> set[str]:
        one = thread(user("Hi"), said(LONG), user("yes"), reply=LONG, **fields)
        return {one.asked, one.follows, one.reaches, *one.recalls, *one.answers[0], *one.makes}

    ways: list[dict[str, Any]] = [
        {},
        {"headers": {"authorization": "Bearer sk-2"}},
        {"headers": {"x-api-key": "sk-1"}},
        *({"headers": {name: f"sk-{n}"}} for n, name in enumerate(KEY_HEADERS, start=10)),
        *({"headers": {name: f"sk-{n}"}} for n, name in enumerate(KEY_HEADERS, start=40)),
        *({"headers": KEY | {name: f"sk-{n}"}} for n, name in enumerate(KEY_HEADERS[1:], start=70)),
        {"headers": {}, "path": "/?key=g1"},
        {"headers": {}, "path": "/?key=g2"},
        {"headers": {}, "path": "/?subscription-key=g1"},
        {"headers": {}},
        {"tenant": "other"},
        {"hash_key": b"x" * 32},
        {"listener": 1},
        {"api": "vercel.ui"},
        {"previous_response_id": "resp_1"},
    ]
    found = [digests(**way) for way in ways]
    assert len(set.union(*found)) == sum(map(len, found))


def bearer(**claims: str) -> dict[str, str]:
    middle = base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=")
    return {"authorization": f"Bearer e30.{middle}.sig"}


def test_keys_that_are_renewed_or_signed_are_known_by_who_they_are_of(thread) -> None:
    def asked(headers: dict[str, str]) -> str:
        return thread(user("Hi"), headers=headers).asked

    assert asked(bearer(sub="s", exp="1")) == asked(bearer(sub="s", exp="2")) != asked(bearer(sub="t", exp="1"))
    assert asked(bearer(exp="1")) != asked(bearer(exp="2"))
    assert (
        asked(bearer(client_id="s", exp="1")) == asked(bearer(client_id="s", exp="2")) != asked(bearer(client_id="t"))
    )


def aws(key_id: str, region: str = "us-east-1", service: str = "bedrock", day: int = 20261124) -> dict[str, str]:
    scope = f"{key_id}/{day}/{region}/{service}/aws4_request"
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={key_id}{day}"}


def google(token: str, path: str = "/v1/projects/p-1/locations/global/publishers/google/models/m:generateContent",
           host: str = "aiplatform.googleapis.com") -> dict[str, Any]:  # fmt: skip
    return {"path": path, "headers": {"authorization": f"Bearer {token}", "Host": host}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"headers": aws("AKIA1")}, {"headers": aws("AKIA1", day=20261125)}, True),
        ({"headers": aws("AKIA1")}, {"headers": aws("AKIA2")}, False),
        ({"headers": aws("ASIA1")}, {"headers": aws("ASIA2", day=20261125)}, True),
        ({"headers": aws("ASIA1")}, {"headers": aws("ASIA2", region="eu-west-1")}, False),
        ({"headers": aws("ASIA1")}, {"headers": aws("ASIA2", service="execute-api")}, False),
        ({"headers": aws("ASIA1")}, {"headers": aws("ASIA1"), "listener": 1}, False),
        ({"headers": aws("ASIA1")}, {"headers": aws("AKIA1")}, False),
        (google("ya29.c.one"), google("ya29.c.two"), True),
        (google("ya29.c.one"), google("ya29.c.two", "/v1/projects/p-2/locations/global/models/m:x"), False),
        (google("ya29.c.one", "/v1/chat"), google("ya29.a0.two", "/v1/chat"), True),
        (google("ya29.c.one", "/v1/chat"), google("ya29.c.two", "/v1/chat", "other.googleapis.com"), False),
        (google("ya29.c.one"), google("sk-one"), False),
        (google("sk-one"), google("sk-two"), False),
    ],
)
def test_keys_of_a_session_and_access_tokens_are_renewed(thread, wire, one, other, same: bool) -> None:
    def caller(path: str = "/", headers: dict[str, str] = KEY, listener: int = 0) -> str:
        return caller_of("acme", HASH_KEY, wire.exchange(wire.post(path, b"", headers), listener=listener))

    assert (thread(user("Hi"), **one).asked == thread(user("Hi"), **other).asked) is same
    assert (caller(**one) == caller(**other)) is same


@pytest.mark.parametrize(
    ("headers", "again"),
    [
        ({}, False),
        ({"x-stainless-retry-count": "0"}, False),
        ({"x-stainless-retry-count": "2"}, True),
        ({"amz-sdk-request": "attempt=1; max=4"}, False),
        ({"amz-sdk-request": "ttl=20261124T000000Z; attempt=2; max=4"}, True),
        ({"amz-sdk-request": "attempt=" + "9" * 5000}, True),
    ],
)
def test_a_client_that_says_that_it_repeats(thread, headers: dict[str, str], again: bool) -> None:
    assert thread(user("Hi"), headers=headers).again is again


def test_nothing_said_tells_nothing(thread) -> None:
    assert thread() is None
    assert thread(SYSTEM) is None


TEXTS = st.sampled_from(["", "a", "yes", LONG, "\ud800"])
TURNS = st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant", "tool", "odd"]), TEXTS), max_size=8)


@given(turns=TURNS, reply=TEXTS, question=TEXTS)
def test_whatever_was_said_the_answer_is_followed(turns: list[Turn], reply: str, question: str) -> None:
    bare = SimpleNamespace(headers={}, query={}, claims={}, raw=SimpleNamespace(listener=0))

    def read(turns: list[Turn], reply: str) -> Thread | None:
        return read_thread("t", HASH_KEY, bare, Call("x", turns=tuple(turns), reply=reply, completed=True))

    first = read(turns, reply)
    if first is None:
        return
    following = read([*turns, said(reply), user(question)], "")
    assert following.follows == first.reaches
    assert following.asked != first.asked
