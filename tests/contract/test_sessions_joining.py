"""What makes several calls one session: traces, two sides of one conversation, and ids that are found later."""

from __future__ import annotations

import dataclasses

from calls import HOUR, RESOLVE, TENANT, TERMS, TRACE, named, texts

from sidecar import identity
from sidecar.sessions.scripts import LIMITS

# -- traces and sub-agents ---------------------------------------------------------------------------------------


async def test_a_sub_agent_joins_by_its_trace_and_is_no_turn_of_the_users(calls):
    main = await calls.make(TRACE, thread=texts("hi", reply="hello"))
    sub = await calls.make(TRACE, thread=texts("find out", reply="found"))
    later = await calls.make(thread=texts("find out", "found", "more", reply="all"))
    assert main == sub == later
    view = await calls.store.session(main)
    assert (view.turns, view.llm_calls) == (2, 3)


async def test_a_trace_is_weaker_than_texts_and_ids(calls):
    one = await calls.make(thread=texts("a", reply="x"))
    two = await calls.make(thread=texts("b", reply="y"))
    assert await calls.make(TRACE, thread=texts("a", "x", "go on", reply="z")) == one
    assert await calls.make(TRACE, thread=texts("b", "y", "go on", reply="z")) == two
    three = await calls.make(named("c-3"))
    four = await calls.make(named("c-4"), identity.key(TENANT, "trace", "t4"))
    assert await calls.make(named("c-3"), identity.key(TENANT, "trace", "t4")) == three
    assert len({one, two, three, four}) == 4
    assert (await calls.counters()).get("merged", 0) == 0


async def test_one_job_for_two_customers_is_two_conversations(calls):
    one = await calls.make(TRACE, thread=texts("a", reply="x"), customer="c1")
    two = await calls.make(TRACE, thread=texts("b", reply="y"), customer="c2")
    assert one != two
    # and what begins without a customer is not put together with both
    late = identity.key(TENANT, "trace", "t9")
    first = await calls.make(late, thread=texts("c", reply="x"), customer="c1")
    assert await calls.make(late, thread=texts("b", "y", "more", reply="z")) == two != first
    assert await calls.make(late, thread=texts("find out", reply="found")) == first
    counters = await calls.counters()
    assert (counters.get("merged", 0), counters.get("customer_conflicts", 0)) == (0, 0)


async def test_what_an_agent_does_after_the_end_is_no_return(calls):
    main = await calls.make(TRACE, thread=texts("hi", reply="done"), effects=(RESOLVE,))
    assert await calls.make(TRACE, thread=texts("write a note", reply="noted")) == main
    assert (await calls.counters())["opened"] == 1


async def test_a_trace_joins_only_so_many(calls):
    joins = [calls.call(TRACE, thread=texts(f"q{n}", reply=f"a{n}")) for n in range(LIMITS["trace_joins"] + 2)]
    answers = await calls.apply(*joins)
    assert len({answer.session_id for answer in answers[:-1]}) == 1
    assert answers[-1].session_id != answers[0].session_id
    assert (await calls.counters())["trace_joins_over"] == 1


# -- two sides ---------------------------------------------------------------------------------------------------


async def test_two_sides_are_one_session_and_each_turn_counts_once(calls):
    for n, (question, answer) in enumerate([("hi", "hello"), ("bill?", "paid")]):
        trace = identity.key(TENANT, "trace", f"turn-{n}")
        history = ("hi", "hello") if n else ()
        model = await calls.make(trace, thread=texts(*history, question, reply=answer), says=(f"prompt {question}",))
        user = await calls.make(
            named("chat-1"), trace, says=(f"user {question}",), user_side=True, llm_calls=0, at=calls.now - 100
        )
        assert user == model
    view = await calls.store.by_alias("conversation", "chat-1") or await calls.store.session(model)
    assert (view.turns, view.llm_calls) == (2, 2)
    assert (await calls.counters())["opened"] == 1


async def test_two_sides_with_the_same_id_in_different_places_are_one(calls):
    user = await calls.make(named("s-1", "header:x-session-id"), says=("u1",), user_side=True, llm_calls=0)
    assert await calls.make(named("s-1", "baggage:session.id"), says=("prompt 1",)) == user
    assert (await calls.store.session(user)).turns == 1


async def test_two_sides_are_never_joined_by_texts_alone(calls):
    # The two sides' digests have different scopes (tests/unit/observer/test_thread.py), so nothing is in common.
    model = await calls.make(thread=texts("hi", reply="hello"))
    user = await calls.make(thread=texts("user side: hi", reply="hello"), user_side=True, llm_calls=0)
    assert user != model


async def test_a_side_that_began_alone_is_merged_when_the_other_names_it(calls):
    first = await calls.make(named("chat-1"), says=("u1",), user_side=True, llm_calls=0)
    trace = identity.key(TENANT, "trace", "turn-2")
    alone = await calls.make(trace, thread=texts("prompt 2", reply="x"), input_tokens=7)
    assert alone != first
    assert await calls.make(named("chat-1"), trace, says=("u2",), user_side=True, llm_calls=0) == first
    view = await calls.store.session(alone)
    assert (view.id, view.turns, view.llm_calls, view.input_tokens) == (first, 2, 1, 7)
    counters = await calls.counters()
    assert (counters["opened"], counters["open"], counters["merged"]) == (1, 1, 1)


# -- keys found later, merging -----------------------------------------------------------------------------------


async def test_keys_found_later_are_added(calls):
    one = await calls.make(thread=texts("hi", reply="hello"))
    assert await calls.make(named("c-1"), thread=texts("hi", "hello", "bill?", reply="paid")) == one
    assert await calls.make(named("c-1")) == one
    tool = identity.key(TENANT, "tool_call", "call_9hRzq4WkqXvS2Yd8")
    assert await calls.make(named("c-1"), made=(tool,)) == one
    assert await calls.make(tool) == one


async def test_two_open_sessions_that_are_one_are_merged_into_the_older(calls, redis):
    chat, thread = named("chat-1", "body:id"), named("thread-1", "path:/threads/{}")
    tool = identity.key(TENANT, "tool_call", "call_9hRzq4WkqXvS2Yd8")
    older = await calls.make(chat, says=("m1",), customer="c1", models=("gpt-4o",))
    younger = await calls.make(thread, says=("m1", "m2"), said_now=2, customer="c2", models=("o3",), made=(tool,))
    assert older != younger
    assert await calls.make(chat, thread, says=("m3",)) == older
    for way in (await calls.store.session(younger), await calls.store.session(older)):
        assert (way.id, way.turns, way.llm_calls, way.customer) == (older, 3, 3, "c1")
        assert way.models == ("gpt-4o", "o3")
    assert [(item.rule, item.kind, item.digest) for item in way.evidence] == [("merge", "conversation", younger)]
    assert [entry["what"] for entry in way.timeline].count("exchange") == 3
    assert "merged" in [entry["what"] for entry in way.timeline]
    assert await calls.make(thread) == older
    assert await calls.make(tool) == older
    counters = await calls.counters()
    assert (counters["opened"], counters["open"], counters["customer_conflicts"]) == (1, 1, 1)
    assert not await redis.exists(calls.store.key("session", younger), calls.store.key("timeline", younger))


async def test_of_merged_sessions_the_state_that_is_further_on_stays(calls):
    terms = dataclasses.replace(TERMS, settle_ms=HOUR)
    chat, thread = named("chat-1", "body:id"), named("thread-1", "path:/threads/{}")
    older, before = calls.call(chat)
    younger, after = calls.call(thread, effects=(RESOLVE,))
    both, last = calls.call(chat, thread, says=())
    operations = [
        (dataclasses.replace(o, terms=terms), p) for o, p in ((older, before), (younger, after), (both, last))
    ]
    answers = await calls.apply(*operations)
    assert answers[2].session_id == answers[0].session_id
    assert answers[2].state == "RESOLVED_PENDING"
    view = await calls.store.session(answers[2].session_id)
    assert view.deadline_ms == both.at_ms + HOUR
    assert [item.rule for item in view.evidence] == ["resolve_tool", "merge"]


async def test_finalized_sessions_are_never_merged(calls):
    chat, thread = named("chat-1", "body:id"), named("thread-1", "path:/threads/{}")
    final = await calls.make(thread, effects=(RESOLVE,))
    still_open = await calls.make(chat)
    assert await calls.make(chat, thread) == still_open
    assert (await calls.store.session(final)).id == final
    assert (await calls.counters()).get("merged", 0) == 0


async def test_two_ids_in_the_same_place_are_two_conversations_whatever_else_they_share(calls):
    shared = named("mcp-session", "header:mcp-session-id")
    one = await calls.make(named("c-1"), shared)
    two = await calls.make(named("c-2"), shared)
    assert one != two
    assert await calls.make(named("c-1"), shared) == one
    assert await calls.make(named("c-2"), shared) == two
    assert await calls.make(shared) == one
    assert (await calls.counters())["keys_of_other_sessions"] == 2


async def test_what_leads_to_two_conversations_makes_them_no_one(calls):
    """Two chats, each with a shared thing of its own; a call that names both things and no chat."""
    mcp, tool = named("mcp-session", "header:mcp-session-id"), named("workspace", "header:x-workspace-session-id")
    one = await calls.make(named("c-1", "body:id"), mcp)
    two = await calls.make(named("c-2", "body:id"), tool)
    assert await calls.make(mcp, tool) == one
    assert await calls.make(named("c-2", "body:id")) == two
    assert (await calls.counters()).get("merged", 0) == 0


async def test_a_forked_conversation_does_not_join_the_one_whose_tool_calls_it_carries(calls):
    tool = identity.key(TENANT, "tool_call", "call_9hRzq4WkqXvS2Yd8")
    one = await calls.make(named("c-1"), made=(tool,))
    fork = await calls.make(named("c-2"), tool)
    assert fork != one
    assert await calls.make(tool) == one
