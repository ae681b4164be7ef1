"""Finds the agent APIs: every module of this package that has an `API`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from sidecar.observer import apis
from sidecar.observer.apis.call import Api
from sidecar.observer.exchange import Exchange


@cache
def known_apis() -> tuple[Api, ...]:
    """All of them, by module name."""
    names = sorted(info.name for info in pkgutil.iter_modules(apis.__path__))
    modules = [importlib.import_module(f"{apis.__name__}.{name}") for name in names]
    return tuple(module.API for module in modules if hasattr(module, "API"))


def recognise(exchange: Exchange) -> Api | None:
    """The API that the exchange speaks, or None."""
    if exchange.request is None:
        return None
    return next((api for api in known_apis() if api.recognises(exchange)), None)
