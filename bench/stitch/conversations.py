"""Conversations as agents hold them, without any id, each call as bytes with the truth beside it. Seeded.

Of every kind below there are equally many; two in five end with a resolution. A third begin with the same words as
others, half of these get the same answer to them too. What the wire cannot tell is marked, not left out: a call that
begins anew without any link (the first answer regenerated, the first message edited, a sub-agent without a trace, a
history cut down to words that other conversations have too) starts another `part` of its conversation, and pairs of
calls across parts are not judged. In the last of these cases even what the part is put together with is a guess: such
pairs are told apart, and counted like all others beside that (`truth`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from bench.stitch.dialects import ANTHROPIC, CHAT, DIALECTS, GEMINI, RESPONSES, VERCEL, Said, answer, failure, request
from bench.stitch.talk import USER_SIDE, Call, Talk
from sidecar.wire.records import EndFlag

T0 = 1_795_000_000_000
SPREAD_MS = 3_600_000
_FREQUENT = ("What are your opening hours?", "How long does delivery take?", "Can I return what I bought?")
_KEYS = ("sk-one-4f81", "sk-two-99ab", "sk-three-07cd")


def _plain(talk: Talk) -> None:
    talk.asks()
    talk.answers()


def _retried(talk: Talk) -> None:
    """Failures, cut streams and lost answers, each sent again by the SDK or by the user."""
    talk.asks()
    how = talk.rng.choice(["", "", "500", "429", "cut", "again", "stop"])
    said, counted = talk.reply(), {"x-stainless-retry-count": "1"}
    if how in ("500", "429"):
        talk.send(said, response=failure(int(how)))
        talk.send(said, headers=counted if talk.rng.random() < 0.5 else {}, user_turn=True)
    elif how in ("cut", "stop"):
        whole = answer(talk.dialect, f"resp_{talk.token(20)}", said, stream=True)
        flag = EndFlag.ABORTED_BY_ORIGIN if how == "cut" else EndFlag.ABORTED_BY_CLIENT
        talk.send(said, response=whole[: len(whole) * 2 // 3], flags=flag, user_turn=True)
        talk.send(said, headers=counted if how == "cut" else {})
    elif how == "again" and (len(talk.history) > 1 or not talk.alike):
        talk.send(talk.reply(), user_turn=True)  # it was answered, but the answer was lost on its way
        talk.send(said, headers=counted)
    else:
        talk.send(said, user_turn=True)
    talk.history.append(said)


def _branched(talk: Talk) -> None:
    """An answer regenerated, or a message edited and answered anew; the first ones begin another part."""
    if talk.history and talk.rng.random() < 0.3:
        talk.now += talk.rng.randint(2_000, 20_000)
        asked = max(n for n, said in enumerate(talk.history) if said.role == "user")
        edits = talk.rng.random() < 0.5
        kept = talk.history[: asked + (0 if edits else 1)]
        if asked == 0:
            talk.part += 1
        talk.history = kept
        if edits:
            talk.history.append(Said("user", talk.words(3, 30)))
        talk.answers(user_turn=edits or asked == 0)
    talk.asks()
    talk.answers()


def _with_tools(talk: Talk) -> None:
    """One to three rounds of calls before the answer, some in parallel, some with a word before them."""
    talk.asks()
    for turn in range(talk.rng.randint(1, 3)):
        calls = tuple(talk.tool() for _ in range(talk.rng.choice([1, 1, 2])))
        said = Said("assistant", talk.rng.choice(["", talk.words(3, 9)]), calls=calls)
        talk.send(said, user_turn=turn == 0)
        talk.history.append(said)
        talk.history += [Said("tool", talk.words(2, 40), tool=call) for call in calls]
        talk.now += talk.rng.randint(20, 3_000)
    said = talk.reply()
    talk.send(said)
    talk.history.append(said)


def _cached(talk: Talk) -> None:
    """A question that many ask, of which a cache has the answer: its text, its id and those of its calls."""
    if talk.rng.random() < 0.5:
        _with_tools(talk)
        return
    talk.now += talk.rng.randint(3_000, 60_000)
    question = talk.rng.choice(_FREQUENT)
    talk.history.append(Said("user", question))
    known = (talk.dialect.name, question)
    if known not in talk.cache:
        talk.cache[known] = talk.identity(), Said("assistant", talk.words(8, 30), calls=(talk.tool(),))
    identity, said = talk.cache[known]
    talk.send(said, identity=identity, user_turn=True)
    talk.history += [said, Said("tool", talk.words(2, 40), tool=said.calls[0])]
    talk.now += talk.rng.randint(20, 3_000)
    talk.answers(user_turn=False)


def _renewed(talk: Talk) -> None:
    """A Google access token, another one for each turn."""
    talk.scope = "google llm.test"
    talk.headers.pop(talk.dialect.key_header, None)
    talk.headers["authorization"] = f"Bearer ya29.c.{talk.token(40)}"
    _plain(talk)


def _with_sub_agents(talk: Talk) -> None:
    """Each turn is a trace; agents of the agent's own work in it, some at the same time."""
    if talk.kind == "sub-agents, traced":
        talk.trace()
    talk.asks()
    calls = tuple(talk.tool("delegate") for _ in range(talk.rng.choice([1, 1, 2])))
    said = Said("assistant", "", calls=calls)
    talk.send(said, user_turn=True)
    talk.history.append(said)
    ends = [_sub_agent(talk) for _call in calls]
    talk.history += [Said("tool", talk.words(5, 40), tool=call) for call in calls]
    talk.now = max(ends) + 20
    said = talk.reply()
    talk.send(said)
    talk.history.append(said)


def _sub_agent(talk: Talk) -> int:
    """Another system prompt, no text in common; when it has ended."""
    sub = Talk(talk.rng, talk.number, talk.kind, talk.dialect, talk.now, calls=talk.calls, headers=talk.headers)
    sub.part = talk.part
    sub.system = f"You are a researcher. {talk.token(8)}"
    if talk.kind != "sub-agents, traced":
        sub.part = 1 + max(call.part for call in talk.calls)
    sub.history = [Said("user", f"Find out: {talk.words(5, 30)}")]
    own = talk.kind != "sub-agents, traced"  # then what it is asked begins a session
    for turn in range(talk.rng.randint(0, 2)):
        said = Said("assistant", "", calls=(sub.tool(),))
        sub.send(said, user_turn=own and turn == 0)
        sub.history += [said, Said("tool", sub.words(3, 30), tool=said.calls[0])]
    sub.send(Said("assistant", sub.words(20, 60)), user_turn=own and len(sub.history) == 1)
    return sub.now


def _two_sided(talk: Talk) -> None:
    """The user's side with the chat's id, the model's side without any; one trace a turn."""
    talk.trace()
    talk.asks()
    began = talk.now
    talk.now += 15
    said = talk.reply()
    talk.send(said)
    talk.history.append(said)
    talk.now += 20
    talk.chat = talk.chat or f"chat-{talk.token(12)}"
    shown = [said for said in talk.history[:-1] if said.role in ("user", "assistant")]
    sent = request(VERCEL, talk.chat, shown, {"traceparent": talk.headers["traceparent"]})
    got = answer(VERCEL, f"msg-{talk.token(16)}", said)
    talk.calls.append(
        Call(talk.number, talk.part, talk.kind, began, talk.now, sent, got, listener=USER_SIDE, user_turn=True)
    )


def _trimmed(history: list[Said]) -> list[Said]:
    """The newest five messages: two answers with the questions before them, and the question."""
    return history[-5:]


def _summarised(history: list[Said]) -> list[Said]:
    """A summary in the agent's own words, the last answer with its question, and the question."""
    if len(history) <= 5:
        return history
    return [Said("user", f"Summary of {len(history)} messages so far: all is well."), *history[-3:]]


def _resolved(talk: Talk) -> None:
    """The model's tool resolves it, then it says goodbye; some users come back, which begins a session of its own."""
    talk.asks()
    call = talk.tool("resolve_conversation")
    said = Said("assistant", "", calls=(call,))
    talk.send(said, user_turn=True)
    talk.history += [said, Said("tool", "done", tool=call)]
    said = talk.reply()
    talk.send(said)
    talk.history.append(said)
    if talk.rng.random() < 0.4:
        talk.now += talk.rng.randint(60_000, 600_000)
        talk.part += 100
        _plain(talk)
        KINDS[talk.kind](talk)


def _new_system(talk: Talk) -> None:
    talk.system = f"You help customers. The time is {talk.now}."
    _plain(talk)


KINDS: dict[str, Callable[[Talk], None]] = {
    "plain": _plain,
    "retries, aborts": _retried,
    "branches": _branched,
    "history trimmed": _plain,
    "history summarised": _plain,
    "system prompt changes": _new_system,
    "tools": _with_tools,
    "tools, ids numbered": _with_tools,
    "sub-agents, traced": _with_sub_agents,
    "sub-agents, no trace": _with_sub_agents,
    "two sides, traced": _two_sided,
    "cached answers": _cached,
    "small response ids": _with_tools,
    "renewed credentials": _renewed,
}
_DIALECTS = {
    "retries, aborts": (CHAT,),
    "tools, ids numbered": (CHAT,),
    "cached answers": (CHAT, RESPONSES, ANTHROPIC),
    "small response ids": (CHAT,),
    "renewed credentials": (CHAT, GEMINI),
}
_CUSTOMERS = ("cached answers", "small response ids")  # half of these name one
_SHOWN = {"history trimmed": _trimmed, "history summarised": _summarised}


def write(seed: int, conversations: int) -> list[Call]:
    """That many conversations of 2 to 12 turns, their calls in the order in which they end."""
    rng = random.Random(seed)
    calls: list[Call] = []
    cache: dict[tuple[str, str], tuple[str, Said]] = {}
    for number in range(conversations):
        kind = list(KINDS)[number % len(KINDS)]
        dialect = rng.choice(_DIALECTS.get(kind, DIALECTS))
        talk = Talk(rng, number, kind, dialect, T0 + rng.randrange(SPREAD_MS))
        talk.alike = number % 3 == 0
        talk.shown = _SHOWN.get(kind, list)
        prefix = "Bearer " if dialect.key_header == "authorization" else ""
        talk.headers[dialect.key_header] = prefix + rng.choice(_KEYS)
        talk.cache = cache
        if kind in _CUSTOMERS and rng.random() < 0.5:
            talk.headers["x-customer-id"] = f"cust-{number}"
        for _ in range(rng.randint(2, 12)):
            KINDS[kind](talk)
        if kind != "two sides, traced" and rng.random() < 0.4:
            _resolved(talk)
        calls += talk.calls
    return sorted(calls, key=lambda call: (call.at_ms, call.started_ms, call.conversation))
