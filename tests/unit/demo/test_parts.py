"""The small pure parts of the demo: addresses, quantiles, the document, the month's end."""

import asyncio
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from sidecar.demo import examples, latency, ledger, report, run_demo, script, stage, system, talk

INVOICE = {
    "customer": "northwind",
    "period": "2026-11",
    "currency": "USD",
    "lines": [
        {"charge": "c", "metric": "m", "quantity": "7", "free": "5", "billed": "2", "amount": "1.98", "description": ""}
    ],
    "subtotal": "2.97",
    "credits": "0.99",
    "total": "1.98",
}


def figures(**changes):
    states = {"RESOLVED": 1, "NOT_BILLABLE": 0, "INCONCLUSIVE": 0, "REVERSED": 0}
    values = {
        "parts": script.cast(1),
        "states": states,
        "states_expected": states,
        "invoices": {"northwind": INVOICE},
        "requests": 653,
        "added": latency.Added(400.0, 900.0, 60.0, 120.0),
        "killed": 4711,
        "seconds": 20.0,
    }
    return report.Figures(**(values | changes))


def test_the_json_document_is_the_only_thing_and_has_the_documented_shape():
    out = io.StringIO()
    report.print_json(figures(), out)
    document = json.loads(out.getvalue())
    assert document == {
        "sessions": {"RESOLVED": 1, "NOT_BILLABLE": 0, "INCONCLUSIVE": 0, "REVERSED": 0},
        "invoice": INVOICE,
        "proxy": {"requests": 653, "added_p50_us": 60.0, "added_p99_us": 120.0},
    }


def shown(print_it, *arguments, **options):
    out = io.StringIO()
    print_it(*arguments, Console(file=out, width=160), **options)
    return out.getvalue()


def test_the_tables_show_states_invoice_and_latency():
    text = shown(report.print_tables, figures())
    for expected in ("resolved by tool", "RESOLVED", "1.98 USD", "-0.99", "60 µs", "4711"):
        assert expected in text


def test_the_verdict_names_every_difference():
    text = shown(report.print_verdict, figures(differences=["turns is 2", "total is [3]"]))
    assert "2 figures are wrong" in text
    assert "turns is 2" in text
    assert "total is [3]" in text
    assert "too slow" in shown(report.print_verdict, figures(differences=["a"], note="too slow"))
    assert "Every figure is right" in shown(report.print_verdict, figures())


def test_a_machine_that_was_too_slow_is_said_so_instead_of_wrong_figures():
    text = shown(report.print_verdict, figures(too_slow="2 users wanted to write"))
    assert "too slow for the script" in text
    assert "2 users wanted to write." in text
    assert "wrong" not in text
    assert "right" not in text


def test_slowness_explains_only_what_differs_in_conversations_that_were_late():
    folder = examples.examples_dir()
    [late, other] = [talk.Talk(part) for part in script.cast(7)[4:6]]  # resolved, then escalated; escalated later
    late.pressed_s = 9.0
    demo = stage.Demo(folder, examples.load_agent(folder), [late.part], json_output=True, stay=False)
    added = latency.Added(1.0, 1.0, 1.0, 1.0)
    spoken = {each.part.conversation: each.spoken() for each in (late, other)}
    assert "up to 9.0 s" in demo._too_slow(stage.Played([late], 1, added, complete=False), spoken, [])
    assert demo._too_slow(stage.Played([late, other], 1, added, complete=False), spoken, []) == ""
    late.pressed_s = 4.0
    assert demo._too_slow(stage.Played([late], 1, added, complete=False), spoken, []) == ""


async def test_the_ledger_is_waited_for_as_long_as_something_new_comes():
    books = ledger.Ledger("http://127.0.0.1:1")
    row = ledger.posted({"id": "o", "time": "t", "customer": "c", "event": {"data": {}}})

    async def fill():
        for _ in range(5):
            await asyncio.sleep(0.05)
            async with books._changed:
                books.rows = [*books.rows, row]
                books._changed.notify_all()

    filling = asyncio.create_task(fill())
    assert await books.wait(lambda rows: len(rows) >= 5, standstill_s=20.0)
    await filling
    assert not await books.wait(lambda rows: len(rows) >= 6, standstill_s=0.01)
    await books.close()


def test_the_addresses_say_how_to_put_ones_own_agent_there():
    addresses = system.Addresses("http://p", "http://u", "http://127.0.0.1:8090", "http://b")
    gone = shown(report.print_addresses, addresses, INVOICE, stay=False)
    assert "sidecar run" in gone
    assert "http://b" in gone
    stays = shown(report.print_addresses, addresses, INVOICE, stay=True)
    assert "OPENAI_BASE_URL=http://p/v1" in stays
    assert "the console    http://b/" in stays
    assert "http://b/v1/customers/northwind/invoice?period=2026-11" in stays


def test_added_latency_is_the_difference_of_quantiles():
    direct = [float(value) for value in range(1, 101)]
    added = latency.added(direct, [value + 50 for value in direct])
    assert (added.added_p50_us, added.added_p99_us) == (50.0, 50.0)
    assert added.direct_p50_us == 50.5


def test_the_length_of_an_answer_is_known_once_its_head_is_there():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    assert latency._length(answer[:30]) == 0
    assert latency._length(answer) == len(answer)
    with pytest.raises(ConnectionError, match="Content-Length"):
        latency._length(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_ledger_row_is_read():
    event = {"data": {"session_id": "ses_1", "revision": 2}}
    row = {"id": "out_1", "time": "t", "customer": "northwind", "event": event}
    posted = ledger.posted(row)
    assert (posted.id, posted.customer, posted.session, posted.revision) == ("out_1", "northwind", "ses_1", 2)


def test_what_an_agent_saw_is_summed_by_session():
    class Reply:
        def __init__(self, calls):
            self.calls, self.input_tokens, self.output_tokens = calls, 10, 3

    [first, second] = talk.Talk(script.cast(1)[0], [[Reply(["a"]), Reply([])], [Reply(["b", "c"])]]).spoken()
    assert (first.llm_calls, first.tool_calls, first.input_tokens, first.output_tokens) == (2, 1, 20, 6)
    assert (second.llm_calls, second.tool_calls) == (1, 2)


def test_addresses_files_and_parents(tmp_path):
    assert system.as_url("127.0.0.1:8080") == "http://127.0.0.1:8080"
    assert system.as_url("http://127.0.0.1:8080/") == "http://127.0.0.1:8080"
    assert system.parent_pid(os.getpid()) == os.getppid()
    assert system.parent_pid(2**22 + 1) is None
    assert system.read_json(tmp_path / "none.json") is None
    (tmp_path / "half.json").write_text('{"a": ')
    assert system.read_json(tmp_path / "half.json") is None
    (tmp_path / "whole.json").write_text('{"a": 1}')
    assert system.read_json(tmp_path / "whole.json") == {"a": 1}
    (tmp_path / "log").write_text("\n".join(str(number) for number in range(100)))
    assert system.log_end(tmp_path / "log").splitlines()[-1] == "99"


def test_the_environment_has_no_settings_of_somebody_elses_sidecar(monkeypatch):
    monkeypatch.setenv("SIDECAR_REDIS_URL", "redis://production")
    monkeypatch.setenv("SIDECAR_HASH_KEY", "secret")
    environ = system.environment(Path("/d"), Path("/q"), Path("/p"), "http://u")
    assert environ["SIDECAR_REDIS_URL"] == "embedded"
    assert "SIDECAR_HASH_KEY" not in environ
    assert environ["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (datetime(2026, 11, 30, 23, 59, 30, tzinfo=UTC), 30),
        (datetime(2026, 12, 31, 23, 59, 0, tzinfo=UTC), 60),
        (datetime(2028, 2, 28, 0, 0, 0, tzinfo=UTC), 2 * 86400),
    ],
)
def test_the_end_of_the_month(now, seconds):
    assert stage.seconds_left_in_month(now) == seconds


def test_the_examples_are_found_and_the_agent_loads():
    folder = examples.examples_dir()
    assert (folder / "plans" / "demo.yaml").is_file()
    assert set(examples.load_agent(folder).TOOLS) == {"lookup_order", "resolve_conversation", "transfer_to_human"}


def test_a_missing_sdk_is_told_with_what_to_install(tmp_path):
    (tmp_path / "agent.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(examples.MissingPartError, match=r"pip install 'outcome-sidecar\[demo\]'"):
        examples.load_agent(tmp_path)


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_a_wrong_number_of_conversations_is_refused(count, capsys):
    assert run_demo(json_output=True, stay=False, conversations=count) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "from 1 to 1000" in captured.err


@pytest.mark.parametrize(
    ("started", "on_path", "shown"),
    [
        (".venv/bin/sidecar", None, ".venv/bin/sidecar"),
        ("/opt/venv/bin/sidecar", "/opt/venv/bin/sidecar", "sidecar"),
        ("/opt/lib/sidecar/__main__.py", None, "sidecar"),
    ],
)
def test_the_commands_that_are_shown_can_be_typed_here(monkeypatch, started, on_path, shown):
    monkeypatch.setattr(report.sys, "argv", [started, "demo"])
    monkeypatch.setattr(report.shutil, "which", lambda _: on_path)
    assert report.command_name() == shown
