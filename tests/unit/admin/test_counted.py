"""Every name that is counted is documented, and nothing else is: the sources are read."""

import ast
import re
from pathlib import Path

import sidecar
from sidecar.admin.counted import EVENTS, OTHER, TENANT
from sidecar.admin.measured import WEBHOOKS

ROOT = Path(sidecar.__file__).parent
# What is counted under a name that is put together, or handed on: each place, and the names it can give.
_FINAL = {
    "observation": ("applied", "duplicate", "refused"),
    "signal": ("applied", "duplicate", "waiting", "late", "ambiguous", "refused"),
}
PUT_TOGETHER = {
    "sessions/applier.py": {f"{kind}_{status}" for kind, said in _FINAL.items() for status in said},
    "observer/stitch.py": {"session_keys_over", "handed_on_ids_over", "made_ids_over"},
    "sessions/candidate.py": {
        f"candidate_{name}"
        for name in ("sessions_timed_out", "sweep_failed", "sweep_outbox_full", "producers_pruned", "mark_lagging")
    },
}


def texts(node):
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def counted_events():
    found = set().union(*PUT_TOGETHER.values())
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0]
        if part in {"billing", "cli", "plantest", "demo", "policy", "wire", "proxy"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in {"count", "_count", "_count_times", "_told"} and not isinstance(node.args[0], ast.JoinedStr):
                found |= (
                    texts(node.args[0])
                    if not isinstance(node.args[0], ast.IfExp)
                    else (texts(node.args[0].body) | texts(node.args[0].orelse))
                )
            if name in {"Decoded", "Parsed", "_BoundError"}:  # reasons of what could not be read
                given = [*node.args[name != "_BoundError" :], *(each.value for each in node.keywords)]
                found |= set().union(*(texts(each) for each in given if isinstance(each, ast.Constant | ast.IfExp)))
        if path.name == "exchange.py":
            found |= set(re.findall(r'_unreadable\.append\("(\w+)"\)', path.read_text()))
        if path.name == "observe.py":
            found |= set(re.findall(r'"(unidentified|unanswered)"', path.read_text())) | {"opaque"}
    return {name for name in found if re.fullmatch(r"[a-z_]+", name)}


def test_every_event_that_is_counted_is_in_the_table_and_the_other_way_round():
    assert counted_events() == EVENTS.keys() - {OTHER}


def test_every_name_that_the_scripts_count_is_in_the_table_and_the_other_way_round():
    scripts = "".join(path.read_text() for path in (ROOT / "sessions" / "lua").glob("*.lua"))
    found = set(re.findall(r"count\(work, (?:\w+ and )?'([a-z_]+)'", scripts))
    found |= set(re.findall(r"count\(work, \w+ and '\w+' or '([a-z_]+)'", scripts))
    found |= set(re.findall(r"HINCRBY', key\('counters'\), '([a-z_]+)'", scripts))
    found |= set(re.findall(r'"([a-z_]+_over)":', (ROOT / "sessions" / "facts.py").read_text()))
    found |= set(re.findall(r'"(candidate_\w+)": found', (ROOT / "sessions" / "candidate.py").read_text()))
    plain = {name for name in TENANT if ":" not in name}
    assert found == plain
    ways = set(re.findall(r"return session, '(\w+)'", scripts)) | {"nothing"}
    kinds = {"conversation", "request", "response", "tool_call", "trace"}
    assert {name.partition(":")[2] for name in TENANT if name.startswith("found_by:")} == ways | kinds


def test_every_result_of_a_webhook_is_in_the_table():
    source = (ROOT / "admin" / "webhooks.py").read_text() + (ROOT / "intake" / "verify.py").read_text()
    found = set(re.findall(r'count_webhook\([^,]+, "(\w+)"', source))
    found |= set(re.findall(r'_?(?:Refused|Unreadable)Error\((?:\d+, )?"(\w+)"', source))
    found |= set(re.findall(r'"(\w+)": (?:accepted|duplicates|reading\.unmapped)', source))
    [_, results] = WEBHOOKS.labels
    assert found == results.values.keys()
