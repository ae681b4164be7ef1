"""Did the sender who knows the secret write these bytes, just now? Pure: the schemes are data, the time a parameter.

Signatures are compared in the form in which they were written (base64, hex) and in constant time, so that no second
spelling of a good one passes. During a rotation the secrets of both ends overlap: every configured secret is tried, and
every signature that the sender wrote.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sidecar.intake.sources import TOLERANCE_MS, Scheme, Source

SIGNATURES_MAX = 16
_PARTS = re.compile(r"(\{[a-z]+\})")
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----(.*?)-----END [A-Z ]+-----", re.DOTALL)
# HubSpot signs its URI with these, and only these, decoded.
_DECODED = re.compile("%(?:3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)
_DIGESTS: dict[str, Literal["sha256", "sha1"]] = {"hmac-sha256": "sha256", "hmac-sha1": "sha1"}
_UNIX_MS = {"s": 1000, "ms": 1}


class RefusedError(Exception):
    """The request is not taken: `reason` is forged or stale, the text says what to look at."""

    def __init__(self, reason: Literal["forged", "stale"], detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request as it arrived. `uri` is the whole URL as the sender knows it; names of headers are lower case."""

    method: str
    uri: str
    headers: Mapping[str, str]
    body: bytes


def verify(source: Source, secrets: Sequence[str], delivery: Delivery, now_ms: int) -> Scheme:
    """The scheme by which the delivery is signed, rightly and within the replay window; raises RefusedError."""
    scheme = next((one for one in source.schemes if one.signature in delivery.headers), None)
    if scheme is None:
        wanted = " or ".join(one.signature for one in source.schemes)
        raise RefusedError("forged", f"not signed: the header {wanted} is missing")
    missing = [name for name in (scheme.timestamp, scheme.id) if name and name not in delivery.headers]
    if missing:
        raise RefusedError("forged", f"not signed: the header {missing[0]} is missing")
    given = _given(scheme, delivery.headers[scheme.signature])
    # No early end: how long it takes must not tell which secret is the right one.
    matches = [_matches(scheme, secret, delivery, given) for secret in secrets]
    if not any(matches):
        raise RefusedError("forged", _mismatch(scheme, delivery))
    _check_time(scheme, delivery, now_ms)
    return scheme


def secret_fault(source: Source, secret: str) -> str | None:
    """What is wrong with a configured secret, or None."""
    keys = {scheme.key for scheme in source.schemes}
    if "base64" in keys and secret.startswith(("whpk_", "whsk_")):
        return "is an asymmetric key (v1a), which is not supported: use a symmetric secret (whsec_…)"
    if "base64" in keys and secret.startswith("whsec_") and _decoded(secret.removeprefix("whsec_")) is None:
        return "has no base64 after whsec_: copy it as the sender shows it"
    if "pem" in keys:
        try:
            _public_key(secret)
        except ValueError:
            return "is no RSA public key: copy all of it, from -----BEGIN to END-----"
    return None


def _given(scheme: Scheme, header: str) -> list[bytes]:
    """The signatures that the sender wrote, without the prefix; those with another prefix are not meant for us."""
    texts = header.split(" ", SIGNATURES_MAX)[:SIGNATURES_MAX] if scheme.several else [header]
    return [_raw(text[len(scheme.prefix) :]) for text in texts if text.startswith(scheme.prefix)]


def _matches(scheme: Scheme, secret: str, delivery: Delivery, given: Iterable[bytes]) -> bool:
    if scheme.algorithm == "secret":
        return sum(hmac.compare_digest(one, _raw(secret)) for one in given) > 0
    message = _message(scheme, secret, delivery)
    if scheme.algorithm == "rsa-sha256":
        return sum(_rsa_verified(secret, message, one) for one in given) > 0
    expected = [_written(scheme, digest) for digest in _digests(scheme, secret, message)]
    return sum(hmac.compare_digest(one, want) for one in given for want in expected) > 0


def _digests(scheme: Scheme, secret: str, message: bytes) -> list[bytes]:
    if scheme.algorithm == "sha256":
        return [hashlib.sha256(message).digest()]
    return [hmac.digest(key, message, _DIGESTS[scheme.algorithm]) for key in _keys(scheme, secret)]


def _keys(scheme: Scheme, secret: str) -> list[bytes]:
    """The bytes of a secret. One that is base64 by its scheme, but has no whsec_, may have been meant as it stands."""
    if scheme.key != "base64":
        return [_raw(secret)]
    decoded = _decoded(secret.removeprefix("whsec_"))
    plain = [] if secret.startswith("whsec_") else [_raw(secret)]
    return plain if decoded is None else [decoded, *plain]


def _message(scheme: Scheme, secret: str, delivery: Delivery) -> bytes:
    values = {
        "{body}": delivery.body,
        "{method}": delivery.method.encode(),
        "{secret}": _raw(secret),
        "{uri}": _raw(_DECODED.sub(lambda found: chr(int(found[0][1:], 16)), delivery.uri)),
        "{timestamp}": _raw(delivery.headers.get(scheme.timestamp, "")),
        "{id}": _raw(delivery.headers.get(scheme.id, "")),
    }
    return b"".join(values[part] if part in values else part.encode() for part in _PARTS.split(scheme.message))


def _written(scheme: Scheme, digest: bytes) -> bytes:
    return base64.b64encode(digest) if scheme.encoding == "base64" else digest.hex().encode()


def _check_time(scheme: Scheme, delivery: Delivery, now_ms: int) -> None:
    if not scheme.timestamp:
        return
    at_ms = _time_ms(scheme.unit, delivery.headers[scheme.timestamp])
    if at_ms is None:
        raise RefusedError("stale", f"{scheme.timestamp} holds no time")
    if abs(now_ms - at_ms) > TOLERANCE_MS:
        raise RefusedError(
            "stale",
            f"{scheme.timestamp} is {abs(now_ms - at_ms) // 1000} seconds off this clock; "
            f"{TOLERANCE_MS // 1000} are allowed",
        )


def _time_ms(unit: str, text: str) -> int | None:
    """Unix milliseconds of a time as senders write it."""
    if unit in _UNIX_MS:
        return int(text) * _UNIX_MS[unit] if re.fullmatch("[0-9]{1,15}", text) else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _rsa_verified(secret: str, message: bytes, signature: bytes) -> bool:
    """RSASSA-PKCS1-v1_5 over SHA-256 (RFC 8017, 8.2.2)."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 -- only who has such a source pays for it
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

    try:
        raw = base64.b64decode(signature, validate=True)
    except binascii.Error:
        return False
    if base64.b64encode(raw) != signature:
        return False
    try:
        _public_key(secret).verify(raw, message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _public_key(text: str) -> Any:
    """The key in a PEM block, however its lines were folded on the way into an environment variable."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    block = _PEM.search(text.replace("\\n", "\n"))
    folded = re.sub(r"\s", "", block[1] if block else text)
    der = base64.b64decode(folded, validate=True)  # binascii.Error is a ValueError
    key = serialization.load_der_public_key(der)
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("not an RSA key")  # noqa: TRY004 -- of the text, not of a type
    return key


def _mismatch(scheme: Scheme, delivery: Delivery) -> str:
    detail = f"{scheme.signature} fits no secret of this source"
    if "{uri}" in scheme.message:
        detail += f"; the URL is signed too, and was taken to be {delivery.uri}: SIDECAR_WEBHOOK_BASE_URL says another"
    return detail


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _raw(text: str) -> bytes:
    """The bytes of a header or a secret, also of one that is no UTF-8."""
    return text.encode("utf-8", "surrogateescape")
