"""`python -m sidecar.proxy CONFIG_JSON`: the proxy process (see `config` for the document)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import uvloop

from sidecar.proxy.config import Config, ConfigError
from sidecar.proxy.listeners import StartError
from sidecar.proxy.log import Log
from sidecar.proxy.server import Server
from sidecar.wire.ring import RingError


async def _serve(config: Config, log: Log) -> int:
    return await Server(config, log).run()


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 after a drain, 1 when it cannot start, 2 for a configuration that cannot be used."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m sidecar.proxy CONFIG_JSON\n")
        return 2
    try:
        config = Config.from_json(arguments[0])
    except ConfigError as error:
        sys.stderr.write(f"sidecar: {error}\n")
        return 2
    if config.lock_fd >= 0:
        os.set_inheritable(config.lock_fd, False)
    log = Log(config.log_format, config.log_level)
    try:
        return uvloop.run(_serve(config, log))
    except (StartError, RingError) as error:
        log.error("proxy_not_started", reason=str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
