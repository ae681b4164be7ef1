"""Which session a call without any id belongs to, by what was said: each test reads as the calls that are made."""

from __future__ import annotations

import dataclasses

from calls import MINUTE, RESOLVE, SECOND, TENANT, texts

from sidecar import identity
from sidecar.sessions.scripts import LIMITS


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
