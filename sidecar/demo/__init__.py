"""`sidecar demo`: scripted agents talk through a real sidecar to a fake LLM; every figure that comes out is checked.

How it works. `script` says, as data, what each conversation does and what must become of it. `system` starts the fake
LLM and `sidecar run` as processes with everything embedded in a temporary directory. `talk` lets all conversations run
at once through the official SDKs and sends the signals; in the middle the observer is killed. `books` reads the billing
API's ledger and invoices and compares them with what the script says and the agents saw; `report` shows both. `stage`
directs all of these.

Owns: the demonstration. Does not own: the agent and the fake LLM, which are examples for everybody.
"""

from __future__ import annotations


def run_demo(*, json_output: bool, stay: bool, conversations: int = 72) -> int:
    """Run the demo; returns the exit code: 0 when every figure is right, 1 when one is not, 2 for wrong usage.

    With `json_output`, stdout gets one JSON document and nothing else. With `stay`, everything goes on running until
    SIGINT or SIGTERM.
    """
    from sidecar.demo import stage  # noqa: PLC0415 - `sidecar --help` must not wait for it

    return stage.run(json_output=json_output, stay=stay, conversations=conversations)
