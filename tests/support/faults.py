"""A billing API that misbehaves as real ones do, in front of the real one."""

import contextlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

FAULTS = ("500", "429", "stored_then_dropped", "silence")
CHOICES = ("none", "none", *FAULTS)


class FaultyFront:
    """Forwards to `url`; from `misbehave()` to `calm()` it answers 500, 429, nothing, or stores and then drops the
    connection.

    Each of these once at first, the silence last since it costs its caller a timeout; then at random.
    """

    def __init__(self, url, seed):
        self.url = url
        self.seen = dict.fromkeys(CHOICES, 0)
        self._random = random.Random(seed)
        self._first = ["silence", *self._random.sample(["none", *FAULTS[:-1]], len(FAULTS))]
        self._dealing = threading.Lock()
        self._calm = threading.Event()
        self._calm.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def misbehave(self):
        """From now on there are faults."""
        self._calm.clear()

    def calm(self):
        """From now on everything is forwarded."""
        self._calm.set()

    def misbehaved(self):
        """Whether every fault has happened."""
        return all(self.seen[fault] for fault in FAULTS)

    def posts(self):
        """How many requests have come."""
        return sum(self.seen.values())

    def _deal(self):
        with self._dealing:
            if self._calm.is_set():
                fault = "none"
            else:
                fault = self._first.pop() if self._first else self._random.choice(CHOICES)
            self.seen[fault] += 1
            return fault

    def close(self):
        self._calm.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(front):  # noqa: N805 - the handler's own self is the request
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                with contextlib.suppress(httpx.HTTPError):
                    answer = httpx.get(front.url + self.path)
                    self._reply(answer.status_code, answer.content, {})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fault = front._deal()
                if fault == "silence":
                    front._calm.wait(20)
                    self.close_connection = True
                elif fault in {"500", "429"}:
                    self._reply(int(fault), b"", {"Retry-After": "1"} if fault == "429" else {})
                else:
                    answer = front._forward(self.path, body, dict(self.headers))
                    if fault == "stored_then_dropped" or answer is None:
                        self.close_connection = True
                    else:
                        self._reply(
                            answer.status_code, answer.content, {"Content-Type": answer.headers["Content-Type"]}
                        )

            def _reply(self, status, body, headers):
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler

    def _forward(self, path, body, headers):
        kept = {name: value for name, value in headers.items() if name.lower() not in {"host", "content-length"}}
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(self.url + path, content=body, headers=kept)
        return None
