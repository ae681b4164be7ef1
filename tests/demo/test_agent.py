"""The example agent, directly against the fake LLM: what the demo's script declares is what the agent does."""

import os
import subprocess
import sys

import pytest

from sidecar.demo.examples import examples_dir
from sidecar.demo.ledger import Ledger
from sidecar.demo.script import cast
from sidecar.demo.talk import Ensemble, Talk


class EverythingPosted(Ledger):
    """A ledger in which every session has already arrived: nothing of the sidecar runs here."""

    async def wait_session(self, conversation, number):
        return True


class Accepts(Ensemble):
    """Without an admin API to send signals to."""

    async def _tell(self, part, tell, id_):
        return []


@pytest.fixture
async def ensemble(agent, llm_url):
    ledger = EverythingPosted(llm_url)
    ensemble = Accepts(agent, llm_url, llm_url, ledger)
    ensemble.last_act.set()
    yield ensemble
    await ensemble.close()
    await ledger.close()


@pytest.mark.parametrize("part", cast(48), ids=lambda part: part.conversation)
async def test_the_agent_keeps_to_the_script_over_both_apis(ensemble, part):
    talk, calls = Talk(part), []
    await ensemble.play(talk, calls.append)
    seen = talk.spoken()
    expected = part.scenario.sessions
    assert [(session.llm_calls, session.tool_calls) for session in seen] == [
        (session.llm_calls, session.tool_calls) for session in expected
    ]
    assert sum(calls) == sum(session.llm_calls for session in expected)
    assert all(session.input_tokens > 0 and session.output_tokens > 0 for session in seen)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_agent_runs_as_a_program(llm_url, provider):
    base = {"OPENAI_BASE_URL": f"{llm_url}/v1", "OPENAI_API_KEY": "k"}
    base |= {"ANTHROPIC_BASE_URL": llm_url, "ANTHROPIC_API_KEY": "k"}
    argv = [
        sys.executable,
        str(examples_dir() / "agent.py"),
        "--provider",
        provider,
        "--stream",
        "Order 1042?",
        "It is solved",
    ]
    done = subprocess.run(argv, env=os.environ | base, capture_output=True, text=True, timeout=60, check=True)
    assert '[lookup_order {"order_id": "1042"}]' in done.stdout
    assert "marked this as resolved" in done.stdout
    assert "4 model calls" in done.stderr


async def test_the_agent_says_which_conversation_and_customer_it_serves(agent):
    served = agent.Agent(chat=None, conversation="c-12345678", customer="northwind")
    assert served.headers == {"X-Session-Id": "c-12345678", "X-Customer-Id": "northwind"}
    assert agent.Agent(chat=None).conversation != agent.Agent(chat=None).conversation


def test_a_mistaken_tool_call_is_told_to_the_model(agent):
    assert "error" in agent.Call("1", "no_such_tool", {}).run()
    assert "error" in agent.Call("1", "lookup_order", {"wrong": "1"}).run()


async def test_a_model_that_only_calls_tools_comes_to_an_end(agent):
    class Restless:
        asked = 0

        def say(self, text):
            pass

        def give(self, results):
            pass

        async def reply(self, headers):
            self.asked += 1
            return agent.Reply("", [agent.Call("1", "lookup_order", {"order_id": "1"})], 1, 1)

    chat = Restless()
    assert "sorry" in await agent.Agent(chat).answer("?")
    assert chat.asked == agent.STEPS_MAX
