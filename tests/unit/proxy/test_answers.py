from __future__ import annotations

import json

from sidecar.proxy.answers import error_answer, json_answer, text_answer
from sidecar.wire.message import read_response


def test_errors_say_where_they_come_from_and_why():
    answer = read_response(error_answer(502, "refused", "h:1 refuses connections"), method="GET", eof=False)
    assert (answer.status, answer.complete) == (502, True)
    assert answer.get("X-Sidecar-Error") == "refused"
    assert answer.get("Connection") == "close"
    error = json.loads(answer.body)["error"]
    assert error == {
        "type": "sidecar_error",
        "code": "refused",
        "message": "outcome-sidecar: h:1 refuses connections",
    }


def test_errors_to_head_keep_their_length():
    answer = error_answer(502, "refused", "x", head_only=True)
    assert answer.endswith(b"\r\n\r\n")
    assert read_response(answer, method="HEAD", eof=False).complete


def test_documents_and_text():
    assert json.loads(read_response(json_answer(200, {"a": "ü"}), method="GET", eof=False).body) == {"a": "ü"}
    assert read_response(text_answer(200, "ok"), method="GET", eof=False).body == b"ok\n"
