"""How each proxy is configured: kept connections on both sides, no access log, bodies streamed, one worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import PATIENCE_S, family, free_port, printed_port, process, wait_listening

Running = tuple[int, int]  # the port, and the process id

_NGINX = """daemon off; worker_processes 1; pid {directory}/pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
 fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
 upstream origin {{ server 127.0.0.1:{origin}; keepalive 128; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{port} reuseport; keepalive_requests 100000000; client_max_body_size 0;
  location / {{ proxy_pass {scheme}://origin; {trust} proxy_http_version 1.1; proxy_set_header Connection "";
   proxy_buffering off; {body} }}
  location = /mirror {{ internal; proxy_pass http://127.0.0.1:{sink}/mirror; proxy_http_version 1.1;
   proxy_set_header Connection ""; }} }}
 server {{ listen 127.0.0.1:{sink}; keepalive_requests 100000000; client_max_body_size 0;
  location / {{ return 200; }} }} }}
"""
_STREAMED = "proxy_request_buffering off;"
_MIRRORED = "mirror /mirror; client_body_buffer_size 2m;"  # nginx can only mirror what it has buffered

_TRUSTED = (
    "proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca_file}; proxy_ssl_name localhost; proxy_ssl_server_name on;"
)

_NGINX_ORIGIN = """daemon off; worker_processes 1; pid {directory}/pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; default_type text/plain;
 fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
 server {{ listen 127.0.0.1:{port} reuseport; keepalive_requests 100000000; client_max_body_size 0;
  location / {{ return 200 "{answer}"; }} }} }}
"""

_HAPROXY = """global
 maxconn 4096
 nbthread 1
defaults
 mode http
 timeout connect 10s
 timeout client 1h
 timeout server 1h
 option http-keep-alive
 http-reuse always
frontend near
 bind 127.0.0.1:{port}
 default_backend far
backend far
 server origin 127.0.0.1:{origin} pool-max-conn 128
"""

_ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: near
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: far, timeout: 0s}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: far
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096}}]}}
    load_assignment:
      cluster_name: far
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {origin}}}}}}}
"""


@contextmanager
def sidecar(
    origin: int, pinned: set[int], *, capture: bool, tree: str = "", ca_file: str = "", stopped: bool = False
) -> Iterator[Running]:
    """The proxy process as `sidecar run` starts it, with a reader of the queue at the observer's priority.

    `tree` is another checkout of the project, to compare with. With `ca_file` the origin speaks TLS. `stopped` stops
    the reader (SIGSTOP), so that the queue fills up and copies are dropped.
    """
    directory = Path(tempfile.mkdtemp(prefix="sidecar-bench-", dir="/dev/shm"))
    queue = str(directory / "queue")
    config = {
        "routes": [{"listen": "127.0.0.1:0", "upstream": f"{scheme_of(ca_file)}://127.0.0.1:{origin}"}],
        "upstream_ca_file": ca_file,
        "admin_listen": "127.0.0.1:0",
        "runtime_dir": str(directory),
        "observer_socket": str(directory / "observer.sock"),
        "queue_path": queue if capture else "",
        "drain_seconds": 1.0,
        "children": [{"name": "drain", "argv": [sys.executable, "-m", "bench.drain", queue]}] if capture else [],
    }
    env = {**os.environ, "PYTHONPATH": tree} if tree else None
    try:
        with process([sys.executable, "-P", "-m", "sidecar.proxy", json.dumps(config)], pinned, env) as started:
            listening = directory / "listening.json"
            deadline = time.monotonic() + PATIENCE_S
            while not listening.exists():
                if time.monotonic() > deadline:
                    raise RuntimeError("the sidecar did not start")
                time.sleep(0.02)
            readers: list[int] = []
            while stopped and not readers:  # it is started once the proxy listens
                time.sleep(0.02)
                readers = family(started.pid)[1:]
            for pid in readers:
                os.kill(pid, signal.SIGSTOP)
            try:
                yield int(json.loads(listening.read_text())["routes"][0]["listen"].rpartition(":")[2]), started.pid
            finally:
                for pid in readers:
                    os.kill(pid, signal.SIGCONT)
    finally:
        shutil.rmtree(directory)


def scheme_of(ca_file: str) -> str:
    """How an origin is spoken to: by TLS if there is an authority to trust."""
    return "https" if ca_file else "http"


@contextmanager
def python(module: str, arguments: list[str], pinned: set[int]) -> Iterator[Running]:
    """A module of ours that prints its port."""
    with process([sys.executable, "-m", module, *arguments], pinned) as started:
        yield printed_port(started), started.pid


@contextmanager
def nginx(origin: int, pinned: set[int], *, mirror: bool = False, ca_file: str = "") -> Iterator[Running]:
    """A streaming nginx; with `mirror`, each request's copy goes to a server that answers at once. `ca_file`: above."""
    port = free_port()
    text = _NGINX.replace("{body}", _MIRRORED if mirror else _STREAMED)
    trust = _TRUSTED.format(ca_file=ca_file) if ca_file else ""
    values = {"origin": origin, "sink": free_port(), "scheme": scheme_of(ca_file), "trust": trust}
    with _configured("nginx", text, pinned, port=port, **values) as running:
        yield running


@contextmanager
def nginx_origin(pinned: set[int], answer: str) -> Iterator[Running]:
    """An origin that costs next to nothing, for saturation: throws the request's body away."""
    with _configured("nginx", _NGINX_ORIGIN, pinned, port=free_port(), answer=answer) as running:
        yield running


@contextmanager
def haproxy(origin: int, pinned: set[int]) -> Iterator[Running]:
    """HAProxy in HTTP mode."""
    with _configured("haproxy", _HAPROXY, pinned, port=free_port(), origin=origin) as running:
        yield running


@contextmanager
def envoy(origin: int, pinned: set[int]) -> Iterator[Running]:
    """Envoy with one worker."""
    with _configured("envoy", _ENVOY, pinned, port=free_port(), origin=origin) as running:
        yield running


def found(program: str) -> str | None:
    """Where the program is: on the path, or beside this Python (wheels put it there)."""
    beside = Path(sys.executable).with_name(program)
    return shutil.which(program) or (str(beside) if beside.exists() else None)


@contextmanager
def _configured(program: str, text: str, pinned: set[int], *, port: int, **values: object) -> Iterator[Running]:
    directory = tempfile.mkdtemp(prefix=f"sidecar-bench-{program}-")
    path = Path(directory, "config.yaml" if program == "envoy" else "config")
    path.write_text(text.format(directory=directory, port=port, **values))
    binary = found(program) or program
    argv = {
        "nginx": [binary, "-p", directory, "-c", str(path)],
        "haproxy": [binary, "-db", "-f", str(path)],
        "envoy": [binary, "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "off"],
    }[program]
    try:
        with process(argv, pinned) as started:
            wait_listening(port)
            yield port, started.pid
    finally:
        shutil.rmtree(directory)
