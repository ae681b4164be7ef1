"""The values of settings: how each is written, and what it is read as. A wrong one says how to write it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from sidecar.addresses import Address, Origin, parse_address, parse_origin
from sidecar.observer.locators import parse_locators

EMBEDDED = "embedded"
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
_BYTES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_bytes(text: str) -> int:
    """`32MiB`, `1GiB`, `500000` → bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] not in _BYTES:
        raise ValueError(f"is not a size: write it like 32MiB (units: {', '.join(u for u in _BYTES if u)})")
    return int(float(match[1]) * _BYTES[match[2]])


def _locators(text: str) -> str:
    parse_locators(text)
    return text


def _redis_url(text: str) -> str:
    if text == EMBEDDED or text.partition("://")[0] in REDIS_SCHEMES:
        return text
    raise ValueError(f"must be `{EMBEDDED}` or a URL with one of {', '.join(s + '://' for s in REDIS_SCHEMES)}")


def _base_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#@\s]*)?", text):
        raise ValueError("must be a base URL such as https://hooks.example.com")
    return text.rstrip("/")


def _billing_url(text: str) -> str:
    try:
        return text if text == EMBEDDED else _base_url(text)
    except ValueError:
        example = "https://billing.example.com; a token goes into SIDECAR_BILLING_TOKEN"
        raise ValueError(f"must be `{EMBEDDED}` or a base URL such as {example}") from None


def _routes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    routes = []
    for part in filter(None, (piece.strip() for piece in value.split(","))):
        listen, equals, upstream = part.partition("=")
        if not equals:
            raise ValueError(f"`{part}` is not listen=upstream, for example 127.0.0.1:8080=https://api.openai.com")
        routes.append(Route(listen=parse_address(listen.strip()), upstream=parse_origin(upstream.strip())))
    return tuple(routes)


def _boolean(value: Any) -> Any:
    if isinstance(value, str):
        if value.lower() in {"true", "1", "yes", "on"}:
            return True
        if value.lower() in {"false", "0", "no", "off", ""}:
            return False
        raise ValueError("must be true or false")
    return value


def _socket_mode(text: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError("must be three octal digits, for example 0660 (owner and group) or 0666 (everybody)")
    return text


def _tenant(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError("must be 1 to 64 letters, digits, `.`, `_` or `-`, and begin with a letter or digit")
    return text


def _parse_bytes(value: Any) -> Any:
    return parse_bytes(value) if isinstance(value, str) else value


def _parse_address(value: Any) -> Any:
    return parse_address(value) if isinstance(value, str) else value


def _parse_origin(value: Any) -> Any:
    return parse_origin(value) if isinstance(value, str) else value


ByteSize = Annotated[int, BeforeValidator(_parse_bytes)]
ListenAddress = Annotated[Address, BeforeValidator(_parse_address)]
UpstreamOrigin = Annotated[Origin, BeforeValidator(_parse_origin)]
Locators = Annotated[str, AfterValidator(_locators)]
SocketMode = Annotated[str, AfterValidator(_socket_mode)]
Boolean = Annotated[bool, BeforeValidator(_boolean)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
BillingUrl = Annotated[str, AfterValidator(_billing_url)]
Tenant = Annotated[str, AfterValidator(_tenant)]


class Route(BaseModel):
    """One listener and the origin that its requests go to."""

    model_config = ConfigDict(frozen=True)

    listen: Address
    upstream: Origin


Routes = Annotated[tuple[Route, ...], BeforeValidator(_routes)]
