"""Which session a call belongs to, on a real server: each test reads as the calls that are made."""

from __future__ import annotations

import dataclasses

import pytest
import redis.asyncio as redis_async
from calls import HOUR, MINUTE, SECOND, T0, TENANT, TERMS, Calls, named, texts

from sidecar import identity
from sidecar.policy.effect import Effect
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.store import Store

RESOLVE = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED")
TRACE = identity.key(TENANT, "trace", "t1")


@pytest.fixture
async def redis(redis_server):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield client
    await client.aclose()


@pytest.fixture
def calls(redis):
    return Calls(Store(redis, TENANT))


# -- no id at all ------------------------------------------------------------------------------------------------


async def test_a_conversation_is_followed_by_what_was_said(calls):
    one = await calls.say("hi", reply="hello")
    two = await calls.say("hi", "hello", "bill?", reply="paid", replica="b")
    three = await calls.say("hi", "hello", "bill?", "paid", "thanks", reply="bye")
    assert one == two == three
    assert (await calls.store.session(one)).turns == 3
    assert (await calls.counters())["opened"] == 1


async def test_conversations_that_begin_alike_stay_apart(calls):
    one = await calls.say("hi", reply="hello")
    two = await calls.say("hi", reply="hello")
    assert one != two
    first = await calls.say("hi", "hello", "bill?", reply="paid")
    second = await calls.say("hi", "hello", "parcel?", reply="sent")
    assert {first, second} == {one, two}
    assert await calls.say("hi", "hello", "parcel?", "sent", "ok", reply="bye") == second
    assert await calls.say("hi", "hello", "bill?", "paid", "ok", reply="bye") == first


async def test_a_request_that_failed_or_was_cut_is_the_same_turn_when_it_is_sent_again(calls):
    one = await calls.say("hi", reply="hello")
    assert await calls.say("hi", "hello", "bill?", llm_calls=0, opens=False) == one
    other = await calls.say("hi", reply="hello")
    assert other != one
    assert await calls.say("hi", "hello", "bill?", reply="paid") == one
    assert (await calls.store.session(one)).turns == 2
    cut = await calls.say("new", aborted=True)
    assert await calls.say("new", reply="ok") == cut
    assert await calls.say("new", reply="ok") != cut


async def test_a_first_request_that_failed_opens_nothing_and_its_repetition_is_nobody_elses(calls):
    other = await calls.say("hi", reply="hello")
    assert await calls.say("hi", opens=False, llm_calls=0) == ""
    mine = await calls.say("hi", reply="hello", again=True)
    assert mine != other
    assert await calls.say("hi", reply="hello", again=True) == mine  # the answer was lost on its way
    assert (await calls.counters())["unplaced"] == 1


async def test_a_failure_is_not_remembered_for_ever(calls):
    await calls.say("hi", opens=False, llm_calls=0)
    calls.now += LIMITS["repeat_minutes"] * MINUTE + SECOND
    one = await calls.say("hi", reply="hello")
    assert await calls.say("hi", reply="hello", again=True) == one  # of what was answered just now


async def test_a_cut_request_is_not_waited_for_for_ever(calls):
    cut = await calls.say("hi", aborted=True)
    calls.now += LIMITS["repeat_minutes"] * MINUTE + SECOND
    assert await calls.say("hi", reply="hello") != cut


async def test_a_cut_request_that_is_applied_after_its_repetition(calls):
    cut = calls.call(at=0, thread=texts("hi"), aborted=True, replica="b")
    again = await calls.say("hi", reply="hello", at=2 * SECOND)
    (late,) = await calls.apply(cut)
    assert late.session_id == again
    # it is answered: whoever says the same next is another
    assert await calls.say("hi", reply="hello") != again


async def test_branches_stay_in_the_session(calls):
    one = await calls.say("hi", reply="hello")
    await calls.say("hi", "hello", "bill?", reply="paid", says=("hi", "bill?"))
    assert await calls.say("hi", "hello", "bill?", reply="unpaid", says=("hi", "bill?")) == one  # regenerated
    assert (await calls.store.session(one)).turns == 2
    assert await calls.say("hi", "hello", "invoice?", reply="which?") == one  # edited
    assert await calls.say("hi", "hello", "bill?", "paid", "ok", reply="bye") == one
    assert await calls.say("hi", "hello", "bill?", "unpaid", "oh", reply="yes") == one


async def test_a_regenerated_answer_is_of_who_asked_it(calls):
    sessions = [await calls.say("hi", reply="hello") for _ in range(3)]
    asked = [await calls.say("hi", "hello", f"about {n}", reply=f"answer {n}") for n in range(3)]
    assert sorted(asked) == sorted(sessions)
    for n in (1, 0, 2):
        assert await calls.say("hi", "hello", f"about {n}", reply=f"another {n}") == asked[n]


async def test_a_trimmed_history_is_known_by_the_answers_in_it(calls):
    one = await calls.say("first", reply="one")
    other = await calls.say("second", reply="one")
    last = await calls.say("second", "one", "more", reply="two")
    assert last == other
    assert await calls.say("summary", "two", "go on", answers=("two",), reply="x") == other
    # both said "one": of the two, it is the one that stands there
    assert await calls.say("summary", "one", "go on", answers=("one",), reply="y") == one
    assert (await calls.counters())["ambiguous"] == 1
    # what both answers tell is told by one alone
    assert await calls.say("s", "one", "two", "?", answers=("two", "one"), reply="z") == other


async def test_an_answer_that_many_got_puts_no_two_conversations_together(calls):
    one = await calls.say("first", reply="anything else?")
    other = await calls.say("second", reply="anything else?")
    apart = await calls.say("summary", "anything else?", "yes", answers=("anything else?",), reply="x")
    assert apart not in (one, other)
    counters = await calls.counters()
    assert (counters["ambiguous_apart"], counters.get("ambiguous", 0)) == (1, 0)
    # as soon as one of them alone stands there, it is that one's
    assert await calls.say("first", "anything else?", "no", reply="bye") == one
    assert await calls.say("s", "anything else?", "well", answers=("anything else?",), reply="y") == other


async def test_whoever_is_meant_gave_more_than_half_of_the_answers(calls):
    """A conversation that had begun before it was seen shares a sentence with one that is known."""
    await calls.say("first", reply="anything else?")
    foreign = ("s", "never seen", "?", "anything else?", "yes")
    alone = await calls.say(*foreign, answers=("anything else?", "never seen"), reply="x")
    assert (await calls.store.session(alone)).turns == 1
    assert (await calls.counters())["opened"] == 2
    # of three answers, one is nobody's: an agent touched it up
    one = await calls.say("a", reply="one")
    assert await calls.say("a", "one", "b", reply="two") == one
    assert await calls.say("z", "one", "b", "two", "c", answers=("two", "one", "own words"), reply="y") == one


async def test_a_conversation_is_known_by_what_its_former_sessions_said(calls):
    one = await calls.say("hi", reply="done", effects=(RESOLVE,))
    two = await calls.say("hi", "done", "again?", reply="what?")
    assert two != one
    assert await calls.say("s", "done", "again?", "what?", "this", answers=("what?", "done"), reply="ok") == two


async def test_a_text_that_leads_to_as_many_as_it_may_tells_nothing(calls):
    said = [f"q{n}" for n in range(LIMITS["text_sessions"] + 1)]
    first, *others = [await calls.say(one, reply="anything else?") for one in said]
    for one in said[1:-1]:
        await calls.say(one, "anything else?", "no", reply="bye")
    # of those that stand there the first was dropped from the text, for there were too many: the last is not alone
    apart = await calls.say("s", "anything else?", "yes", answers=("anything else?",), reply="x")
    assert apart not in (first, *others)


async def test_what_follows_an_answer_that_nothing_had_followed_is_new_in_whatever_words(calls):
    """A summary hides that a "yes" is the second one: its number, and so its digest, is the first one's."""
    one = await calls.say("hi", reply="sure?", says=("hi",))
    await calls.say("hi", "sure?", "yes", reply="really?", says=("hi", "yes"))
    said = {"answers": ("really?",), "says": ("sum", "yes")}
    assert await calls.say("summary", "really?", "yes", **said, llm_calls=0, opens=False) == one
    assert (await calls.store.session(one)).turns == 3
    # the same request again asks nothing new, before the end and after it
    assert await calls.say("summary", "really?", "yes", **said, reply="done", effects=(RESOLVE,)) == one
    assert await calls.say("summary", "really?", "yes", **said, reply="done") == one
    assert (await calls.store.session(one)).turns == 3
    # after its end the user comes back with a word that was said before
    two = await calls.say("summary", "done", "yes", answers=("done",), says=("sum", "yes"), reply="ok")
    assert two != one
    assert (await calls.store.session(two)).turns == 1


async def test_a_repeated_question_is_no_new_message_whatever_it_follows(calls):
    # a client kept what it had of an answer that was cut
    one = await calls.say("hi", says=("hi",), aborted=True)
    more = dataclasses.replace(texts("hi", "hel", "more"), recalls=("asked hi",))
    for _attempt in range(2):
        assert await calls.make(thread=more, says=("hi", "more"), opens=False) == one
    assert (await calls.store.session(one)).turns == 2
    # found by the id of a tool call, with a history cut down
    tool = identity.key(TENANT, "tool_call", "call_9hRzq4WkqXvS2Yd8")
    two = await calls.say("look", reply="found", says=("look",), made=(tool,))
    cut = texts("sum", "found", "look", reply="there", answers=("found",))
    for _attempt in range(2):
        assert await calls.make(tool, thread=cut, says=("look",)) == two
    assert (await calls.store.session(two)).turns == 2
    # what it followed is nobody's end any more
    other = await calls.say("find", reply="found")
    assert await calls.say("s", "found", "so", answers=("found",), reply="y") == other


async def test_an_answer_that_was_given_twice_makes_nothing_new_later(calls):
    """The first answer was lost on its way: it goes on from the second, and seems to stand at the first."""
    one = await calls.say("hi", reply="hello", says=("hi",))
    assert await calls.say("hi", reply="good day", says=("hi",), again=True) == one
    await calls.say("hi", "hello", "yes", reply="really?", says=("hi", "yes"))
    edited = dataclasses.replace(texts("hi", "hello", "Yes", reply="ok"), recalls=("asked hi",))
    assert await calls.make(thread=edited, says=("hi", "yes")) == one
    assert (await calls.store.session(one)).turns == 2


async def test_equal_texts_of_two_customers_are_two_conversations(calls):
    one = await calls.say("hi", reply="hello", customer="c1")
    two = await calls.say("hi", reply="hello", customer="c2")
    assert await calls.say("hi", "hello", "bill?", reply="x", customer="c2") == two
    assert await calls.say("hi", "hello", "bill?", reply="y", customer="c1") == one
    assert (await calls.counters()).get("customer_conflicts", 0) == 0


async def test_a_user_who_comes_back_after_the_end_begins_a_session_of_the_same_conversation(calls, redis):
    one = await calls.say("hi", reply="done", effects=(RESOLVE,))
    assert await calls.say("hi", reply="done", again=True) == one  # trails
    two = await calls.say("hi", "done", "again?", reply="what?")
    assert two != one
    assert await calls.say("hi", "done", "again?", "what?", "this", reply="ok") == two
    assert await redis.zcard(calls.store.key("sessions", one)) == 2


async def test_rewritten_history_is_no_new_message(calls):
    one = await calls.say("hi", reply="hello", says=("hi",))
    thread = texts("summary", "hello", "more", answers=("hello",), reply="x")
    assert await calls.make(thread=thread, says=("summary", "more"), said_now=1) == one
    assert (await calls.store.session(one)).turns == 2


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


# -- any replica, replay -----------------------------------------------------------------------------------------


async def test_what_follows_something_unknown_waits_while_another_replica_may_bring_it(calls):
    await calls.store.heartbeat("journal-a", T0, 1)
    await calls.store.heartbeat("journal-b", T0 + 10 * SECOND, 1)
    first = calls.call(at=0, replica="a", thread=texts("hi", reply="hello"))
    second = calls.call(at=5 * SECOND, replica="b", thread=texts("hi", "hello", "bill?", reply="paid"))
    options = {"own": "journal-b", "patient_from_ms": T0 + 3 * SECOND}
    (early,) = await calls.apply(second, **options)
    assert (early.status, early.final, early.mark) == ("early", False, 0)
    assert await calls.counters() == {}
    (one,) = await calls.apply(first, own="journal-a")
    (two,) = await calls.apply(second, **options)
    assert two.session_id == one.session_id


async def test_patience_ends_and_what_comes_late_is_joined(calls):
    first = calls.call(at=0, replica="a", thread=texts("hi", reply="hello"))
    second = calls.call(at=5 * SECOND, replica="b", thread=texts("hi", "hello", "bill?", reply="paid"))
    await calls.store.heartbeat("journal-a", T0, 1)
    (two,) = await calls.apply(second, own="journal-b", patient_from_ms=T0 + 6 * SECOND)
    (one,) = await calls.apply(first, own="journal-a")
    assert one.session_id == two.session_id
    view = await calls.store.session(one.session_id)
    assert (view.started_ms, view.llm_calls) == (T0, 2)


async def test_a_replay_in_another_order_finds_the_same_sessions(calls, redis):
    chat, thread, trace = named("chat-1", "body:id"), named("thread-1", "path:/threads/{}"), TRACE
    operations = [
        calls.call(replica="a", thread=texts("hi", reply="hello")),
        calls.call(replica="b", thread=texts("hi", reply="hello")),
        calls.call(replica="b", thread=texts("hi", "hello", "bill?", reply="paid"), effects=(RESOLVE,)),
        calls.call(replica="a", thread=texts("hi", "hello", "bill?", "paid", "more", reply="ok")),
        calls.call(thread, replica="b"),
        calls.call(chat, replica="a"),
        calls.call(chat, thread, replica="a"),
        calls.call(trace, replica="b", thread=texts("sub", reply="found")),
        calls.call(chat, trace, replica="a", effects=(RESOLVE,)),
    ]
    before = await calls.apply(*operations)
    posted = {(event.session_id, event.revision) for answer in before for event in answer.events}
    assert len(posted) == 2
    await redis.flushall()
    order = sorted(range(len(operations)), key=lambda n: (operations[n][0].producer == "a", n))
    again = await calls.apply(*(operations[n] for n in order), went=[before[n].went for n in order])
    sessions = {n: (await calls.store.session(answer.session_id)).id for n, answer in zip(order, again, strict=True)}
    lives = [(await calls.store.session(answer.session_id)).id for answer in before]
    assert [sessions[n] for n in range(len(operations))] == lives
    assert {(event.session_id, event.revision) for answer in again for event in answer.events} == posted


async def test_applying_again_without_loss_changes_nothing(calls):
    operations = [
        calls.call(thread=texts("hi", reply="hello")),
        calls.call(thread=texts("hi", "hello", "x", reply="y")),
    ]
    await calls.apply(*operations)
    before = await calls.counters()
    assert [answer.status for answer in await calls.apply(*operations)] == ["duplicate"] * 2
    assert await calls.counters() == before


# -- bounds, lives, wiring ---------------------------------------------------------------------------------------


async def test_a_text_leads_to_so_many_sessions_and_those_still_open_ended_stay(calls):
    sessions = [await calls.say("hi", reply=f"hello {n}") for n in range(LIMITS["text_sessions"] + 3)]
    assert len(set(sessions)) == len(sessions)
    assert (await calls.counters())["text_sessions_dropped"] == 3
    assert await calls.say("hi", "hello 0", "x", reply="y") == sessions[0]


async def test_a_session_has_so_many_texts_the_oldest_go(calls, redis):
    said = ["q0"]
    operations = []
    for n in range(LIMITS["texts"] // 3 + 5):
        operations.append(calls.call(thread=texts(*said, reply=f"a{n}")))
        said += [f"a{n}", f"q{n + 1}"]
    answers = await calls.apply(*operations)
    assert len({answer.session_id for answer in answers}) == 1
    assert (await calls.counters())["texts_dropped"] == 3 * len(operations) - LIMITS["texts"]
    assert await redis.llen(calls.store.key("texts", answers[0].session_id)) == LIMITS["texts"]


async def test_texts_and_what_was_merged_expire(calls, redis):
    await calls.make(TRACE, thread=texts("hi", reply="hello"))
    await calls.say("bye", opens=False)
    await calls.make(named("a", "x"))
    await calls.make(named("b", "y"))
    await calls.make(named("a", "x"), named("b", "y"))
    final = await calls.say("end", reply="done", effects=(RESOLVE,))
    eternal = {name.decode() async for name in redis.scan_iter() if await redis.pttl(name) == -1}
    bounded = {"outbox", "deadlines", "counters", "finalized"}
    assert {name.removeprefix(calls.store.prefix + ":") for name in eternal} == bounded
    assert await redis.pttl(calls.store.key("text", "state end done")) <= 96 * HOUR
    assert await redis.pttl(calls.store.key("texts", final)) <= 96 * HOUR


async def test_the_counters_tell_how_the_deployment_is_wired(calls):
    await calls.make(named("c-1"), customer="x")
    await calls.make(named("c-1"))
    await calls.say("hi", reply="hello", customer="x")
    await calls.say("hi", "hello", "y", reply="z")
    await calls.make(named("c-1"), touch=True)
    counters = await calls.counters()
    assert (counters["exchanges"], counters["exchanges_with_id"], counters["exchanges_with_customer"]) == (4, 2, 2)
    found = {name.partition(":")[2]: n for name, n in counters.items() if name.startswith("found_by:")}
    assert found == {"nothing": 2, "conversation": 1, "text": 1}
    assert counters["opened"] == 2
