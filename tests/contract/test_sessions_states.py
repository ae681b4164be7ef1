"""The Lua reader of the state table against the Python one, on a real server, over random event sequences."""

import json

import redis as redis_client
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.terms import Terms
from sidecar.sessions.scripts import library
from sidecar.sessions.states import Event, IllegalMoveError, State, View, advance

ADVANCE = (
    library()
    + """
local answers = {}
for i, case in ipairs(cjson.decode(ARGV[1])) do
  local ok, decision = pcall(advance, case.session, case.event, case.at)
  answers[i] = ok and decision or { illegal = decision }
end
return cjson.encode(answers)
"""
)

MS = st.integers(0, 400)
TERMS = st.builds(
    Terms,
    plan=st.just("p"),
    digest=st.just("d"),
    timeout_ms=MS,
    settle_ms=st.sampled_from([0, 50]),
    reversal_ms=MS,
    inconclusive_policy=st.sampled_from(["NO_CHARGE", "CHARGE", "HOLD"]),
    on_return=st.sampled_from(["NEW_SESSION", "REVERSE"]),
)
CASES = st.lists(
    st.tuples(
        st.builds(
            View,
            state=st.sampled_from(list(State)),
            deadline_ms=MS,
            last_ms=MS,
            terms=TERMS,
            finalized_ms=MS,
        ),
        st.sampled_from(list(Event)),
        MS,
    ),
    min_size=1,
    max_size=40,
)


def in_python(view, event, at):
    try:
        decision = advance(view, event, at)
    except IllegalMoveError as error:
        return {"illegal": str(error)}
    return {
        "state": decision.state.value,
        "action": decision.action.value,
        "deadline": decision.deadline_ms,
        "assumed": decision.assumed,
        "held": decision.held,
    }


def test_lua_and_python_read_the_table_alike(redis_server):
    client = redis_client.Redis(unix_socket_path=str(redis_server.socket))
    script = client.register_script(ADVANCE)

    @settings(max_examples=150, deadline=None)
    @given(CASES)
    def agree(cases):
        asked = [
            {
                "session": {
                    "state": view.state.value,
                    "deadline": view.deadline_ms,
                    "last": view.last_ms,
                    "finalized": view.finalized_ms,
                    "terms": {
                        name: getattr(view.terms, name)
                        for name in ("timeout_ms", "settle_ms", "reversal_ms", "inconclusive_policy", "on_return")
                    },
                },
                "event": event.value,
                "at": at,
            }
            for view, event, at in cases
        ]
        answers = json.loads(script(keys=["t"], args=[json.dumps(asked)]))
        assert answers == [in_python(*case) for case in cases]

    agree()
    client.close()
