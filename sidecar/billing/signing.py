"""Standard Webhooks 1.0: how what is sent to others is signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"  # noqa: S105 - how Standard Webhooks marks one


def signature(secret: str, identifier: str, timestamp_s: int, body: bytes) -> str:
    """`v1,…` over id, timestamp and body."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{identifier}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def is_secret(secret: str) -> bool:
    """`whsec_` and base64 of 24 to 64 bytes."""
    try:
        return 24 <= len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)) <= 64
    except binascii.Error:
        return False
