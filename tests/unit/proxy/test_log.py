from __future__ import annotations

import io
import json

from sidecar.proxy.log import Log


def test_json_lines_have_the_shape_of_the_other_logs():
    stream = io.StringIO()
    Log("json", "info", stream).warning("child_exited", child="observer", code=-9)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "child_exited", "child": "observer", "code": -9, "level": "warning"}


def test_text_lines():
    stream = io.StringIO()
    Log("text", "info", stream).info("listening", admin="127.0.0.1:1")
    assert stream.getvalue().endswith("[info   ] listening admin=127.0.0.1:1\n")


def test_the_level_is_a_floor():
    stream = io.StringIO()
    log = Log("json", "error", stream)
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert stream.getvalue() == ""
    log.error("d")
    assert "d" in stream.getvalue()


def test_a_closed_stream_does_not_matter():
    stream = io.StringIO()
    stream.close()
    Log("json", "info", stream).info("a")
