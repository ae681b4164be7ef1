"""Webhooks as their vendors document them: example payloads, and the documented way to sign, written out once more.

Nothing here uses the sidecar's own data or code: what it accepts is checked against this.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

URL = "https://hooks.example.com"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_PEM = (
    RSA_KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


def _b64(digest):
    return base64.b64encode(digest).decode()


def _hmac(secret, message, algorithm="sha256"):
    return hmac.new(secret.encode(), message, algorithm)


def zendesk(secret, body, now_s, uri):
    at = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    signature = _b64(_hmac(secret, at.encode() + body).digest())
    return {"X-Zendesk-Webhook-Signature": signature, "X-Zendesk-Webhook-Signature-Timestamp": at}


def intercom(secret, body, now_s, uri):
    return {"X-Hub-Signature": "sha1=" + _hmac(secret, body, "sha1").hexdigest()}


def hubspot_v3(secret, body, now_s, uri):
    at = str(now_s * 1000)
    signature = _b64(_hmac(secret, b"POST" + uri.encode() + body + at.encode()).digest())
    # Every delivery carries the older signature as well.
    return hubspot_v1(secret, body, now_s, uri) | {
        "X-HubSpot-Signature-v3": signature,
        "X-HubSpot-Request-Timestamp": at,
    }


def hubspot_v1(secret, body, now_s, uri):
    signature = hashlib.sha256(secret.encode() + body).hexdigest()
    return {"X-HubSpot-Signature": signature, "X-HubSpot-Signature-Version": "v1"}


def front(secret, body, now_s, uri):
    at = str(now_s * 1000)
    return {
        "X-Front-Signature": _b64(_hmac(secret, at.encode() + b":" + body).digest()),
        "X-Front-Request-Timestamp": at,
    }


def secret_header(secret, body, now_s, uri):
    return {"X-Webhook-Secret": secret}


def bearer(secret, body, now_s, uri):
    return {"Authorization": "Bearer " + secret}


def freshchat(secret, body, now_s, uri):
    return {"X-Freshchat-Signature": _b64(RSA_KEY.sign(body, padding.PKCS1v15(), hashes.SHA256()))}


def chatwoot(secret, body, now_s, uri):
    signature = _hmac(secret, str(now_s).encode() + b"." + body).hexdigest()
    return {"X-Chatwoot-Signature": "sha256=" + signature, "X-Chatwoot-Timestamp": str(now_s)}


def typeform(secret, body, now_s, uri):
    return {"Typeform-Signature": "sha256=" + _b64(_hmac(secret, body).digest())}


def standard(secret, body, now_s, uri, identifier="msg_1", prefix="webhook"):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{identifier}.{now_s}.".encode() + body
    return {
        f"{prefix}-id": identifier,
        f"{prefix}-timestamp": str(now_s),
        f"{prefix}-signature": "v1," + _b64(hmac.new(key, signed, hashlib.sha256).digest()),
    }


def svix(secret, body, now_s, uri):
    return standard(secret, body, now_s, uri, prefix="svix")


@dataclass(frozen=True)
class Example:
    """A documented payload of a source, how it is signed, and what the built-in mapping makes of it."""

    source: str
    sign: object
    payload: object
    conversation: str
    event: str | None  # resolve, escalate, unresolve; None when it means nothing
    signature: str = ""  # the header that carries it
    timestamp: str = ""  # the header that carries the signed time
    secret: str = "a secret of the vendor's making"

    @property
    def body(self):
        return json.dumps(self.payload).encode()

    @property
    def uri(self):
        return f"{URL}/v1/webhooks/{self.source}"

    def headers(self, now_s, body=None, secret=None):
        return self.sign(secret or self.secret, self.body if body is None else body, now_s, self.uri)


def zendesk_event(kind, event, ticket="5158", identifier="c6d7e8f9-0a1b-2c3d-4e5f-6a7b8c9d0e1f"):
    """https://developer.zendesk.com/api-reference/webhooks/event-types/ticket-events/"""
    return {
        "account_id": 22129848,
        "detail": {"actor_id": "8447388090494", "external_id": None, "id": ticket, "status": "OPEN", "tags": ["login"]},
        "event": {"meta": {"sequence": {"id": "01H", "position": 1, "total": 1}}} | event,
        "id": identifier,
        "subject": f"zen:ticket:{ticket}",
        "time": "2025-01-08T12:15:45.789012345Z",
        "type": f"zen:event-type:ticket.{kind}",
        "zendesk_event_version": "2022-11-06",
    }


def intercom_event(topic, item, identifier="notif_78c122d0-23ba-11e4-9464-79b01267cc2e"):
    """https://developers.intercom.com/docs/webhooks"""
    return {
        "type": "notification_event",
        "app_id": "a86dr8yl",
        "data": {"type": "notification_event_data", "item": {"type": "conversation", "id": "123456789"} | item},
        "id": identifier,
        "topic": topic,
        "delivery_attempts": 1,
        "first_sent_at": 1795000000,
        "created_at": 1795000000,
    }


def hubspot_event(name, value, number=3816279340, thread=1246965, attempt=0):
    """https://developers.hubspot.com/docs/guides/crm/private-apps/webhooks"""
    return {
        "objectId": thread,
        "propertyName": name,
        "propertyValue": value,
        "changeSource": "CONVERSATIONS",
        "eventId": number,
        "subscriptionId": 25,
        "portalId": 33,
        "appId": 1160452,
        "occurredAt": 1462216307945,
        "subscriptionType": "conversation.propertyChange",
        "attemptNumber": attempt,
    }


def front_event(kind, conversation="cnv_55c8c149"):
    """https://dev.frontapp.com/reference/events"""
    event = {"id": "evt_55c8c150", "type": kind, "emitted_at": 1453770984.123, "conversation": {"id": conversation}}
    return {"type": kind, "authorization": {"id": "cmp_abc"}, "payload": event}


def freshchat_event(action, part, conversation):
    """https://crmsupport.freshworks.com/support/solutions/articles/50000004461"""
    return {
        "actor": {"actor_type": "agent", "actor_id": "8996ad5d-4b84-4e95-a60d-3f290423db3e"},
        "action": action,
        "action_time": "2022-04-01T06:16:34.207Z",
        "data": {
            part: {"conversation": {"conversation_id": "edc29cf1-a0fc-4d75-b821-d4eea33c0512"} | conversation},
            "interaction_id": "487870040076744-1648793439927",
        },
    }


def chatwoot_event(status, event="conversation_status_changed", assignee=None):
    """https://github.com/chatwoot/docs/blob/main/docs/product/others/webhook-events.md"""
    meta = {"sender": {"id": 12, "type": "contact"}, "assignee": assignee}
    return {"event": event, "id": 42, "status": status, "meta": meta, "timestamp": 1627063369}


def chatwoot_rating(rating):
    response = {"csat_survey_response": {"rating": rating, "feedback_message": "…"}}
    return {
        "event": "message_updated",
        "id": 90210,
        "content_type": "input_csat",
        "content_attributes": {"submitted_values": response},
        "conversation": {"id": 42, "status": "resolved"},
    }


def typeform_event(rating):
    """https://www.typeform.com/developers/webhooks/example-payload/"""
    return {
        "event_id": "LtWXD3crgy",
        "event_type": "form_response",
        "form_response": {
            "form_id": "lT4Z3j",
            "token": "a3a12ec67a1365927098a606107fac15",
            "hidden": {"conversation_id": "c-42"},
            "answers": [
                {"type": "number", "number": 5, "field": {"id": "JwWggjAKtOkA", "type": "number"}},
                {"type": "number", "number": rating, "field": {"id": "SMEUb7VJz92Q", "type": "rating"}},
            ],
        },
    }


def told(outcome, **more):
    return {"event_id": "e-1", "conversation": "c-42", "outcome": outcome} | more


_ZENDESK = ("X-Zendesk-Webhook-Signature", "X-Zendesk-Webhook-Signature-Timestamp")
_HUBSPOT = ("X-HubSpot-Signature-v3", "X-HubSpot-Request-Timestamp")
_FRONT = ("X-Front-Signature", "X-Front-Request-Timestamp")
_CHATWOOT = ("X-Chatwoot-Signature", "X-Chatwoot-Timestamp")
_SECRET = ("X-Webhook-Secret",)
_WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_CLOSED = "conversation.admin.closed"


def _of(source, sign, conversation, headers, *cases, secret=None):
    more = {"secret": secret} if secret else {}
    return [Example(source, sign, payload, conversation, event, *headers, **more) for payload, event in cases]


EXAMPLES = [
    *_of(
        "zendesk", zendesk, "5158", _ZENDESK,
        (zendesk_event("status_changed", {"current": "SOLVED", "previous": "OPEN"}), "resolve"),
        (zendesk_event("status_changed", {"current": "CLOSED", "previous": "SOLVED"}), None),
        (zendesk_event("status_changed", {"current": "OPEN", "previous": "SOLVED"}), "unresolve"),
        (zendesk_event("status_changed", {"current": "OPEN", "previous": "NEW"}), None),
        (zendesk_event("agent_assignment_changed", {"current": "8447388090496", "previous": None}), "escalate"),
        (zendesk_event("agent_assignment_changed", {"current": None, "previous": "8447388090496"}), None),
        (zendesk_event("csat_received", {"satisfaction_score": {"score": "GOOD"}}), "resolve"),
        (zendesk_event("csat_received", {"satisfaction_score": {"score": "BAD"}}), "unresolve"),
        secret="dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==",
    ),
    *_of(
        "intercom", intercom, "123456789", ("X-Hub-Signature",),
        (intercom_event(_CLOSED, {"state": "closed"}), "resolve"),
        (intercom_event(_CLOSED, {"ai_agent": {"resolution_state": "confirmed_resolution"}}), "resolve"),
        (intercom_event(_CLOSED, {"ai_agent": {"resolution_state": "assumed_resolution"}}), "resolve"),
        (intercom_event(_CLOSED, {"ai_agent": {"resolution_state": "escalated"}}), "escalate"),
        (intercom_event(_CLOSED, {"ai_agent": {"resolution_state": "negative_feedback"}}), None),
        (intercom_event("conversation.admin.assigned", {"admin_assignee_id": 814860}), "escalate"),
        (intercom_event("conversation.admin.opened", {"state": "open"}), "unresolve"),
        (intercom_event("conversation.rating.added", {"conversation_rating": {"rating": 5}}), "resolve"),
        (intercom_event("conversation.rating.added", {"conversation_rating": {"rating": 3}}), None),
        (intercom_event("conversation.rating.added", {"conversation_rating": {"rating": 1}}), "unresolve"),
        (intercom_event("conversation.user.replied", {"ai_agent": {"resolution_state": "confirmed_resolution"}}), None),
    ),
    *_of(
        "hubspot", hubspot_v3, "1246965", _HUBSPOT,
        ([hubspot_event("status", "CLOSED")], "resolve"),
        ([hubspot_event("status", "OPEN")], "unresolve"),
        ([hubspot_event("assignedTo", "A-814860")], "escalate"),
        ([hubspot_event("assignedTo", "")], None),
    ),
    *_of(
        "hubspot", hubspot_v1, "1246965", ("X-HubSpot-Signature",), ([hubspot_event("status", "CLOSED")], "resolve")
    ),
    *_of(
        "front", front, "cnv_55c8c149", _FRONT,
        (front_event("archive"), "resolve"),
        (front_event("assign"), "escalate"),
        (front_event("reopen"), "unresolve"),
        (front_event("inbound"), None),
    ),
    *_of(
        "freshdesk", secret_header, "c-42", _SECRET,
        (told("RESOLVED"), "resolve"),
        ({"conversation": "c-42", "freshdesk_webhook": {"ticket_id": 7, "ticket_status": "Resolved"}}, "resolve"),
        ({"conversation": "c-42", "freshdesk_webhook": {"ticket_id": 7, "ticket_status": "Pending"}}, None),
    ),
    *_of(
        "freshchat", freshchat, "edc29cf1-a0fc-4d75-b821-d4eea33c0512", ("X-Freshchat-Signature",),
        (freshchat_event("conversation_resolution", "resolve", {"status": "resolved"}), "resolve"),
        (freshchat_event("conversation_assignment", "assignment", {"assigned_agent_id": "5cf0"}), "escalate"),
        (freshchat_event("conversation_assignment", "assignment", {"assigned_group_id": "4cf5"}), None),
        (freshchat_event("conversation_reopen", "reopen", {"status": "reopened"}), "unresolve"),
        secret=RSA_PEM,
    ),
    *_of(
        "gorgias", secret_header, "158", _SECRET,
        ({"event_id": "1", "ticket": {"id": 158, "status": "closed"}}, "resolve"),
        ({"event_id": "1", "ticket": {"id": 158, "status": "open"}}, None),
    ),
    *_of("gorgias", bearer, "c-42", ("Authorization",), (told("ESCALATED_TO_HUMAN"), "escalate")),
    *_of("salesforce", secret_header, "c-42", _SECRET, (told("UNRESOLVED"), "unresolve")),
    *_of(
        "chatwoot", chatwoot, "42", _CHATWOOT,
        (chatwoot_event("resolved"), "resolve"),
        (chatwoot_event("open"), "escalate"),
        (chatwoot_event("snoozed"), None),
        (chatwoot_event("open", "conversation_updated", {"id": 1, "type": "user"}), "escalate"),
        (chatwoot_event("pending", "conversation_updated", {"id": 1, "type": "agent_bot"}), None),
        (chatwoot_rating(5), "resolve"),
        (chatwoot_rating(1), "unresolve"),
    ),
    *_of(
        "typeform", typeform, "c-42", ("Typeform-Signature",),
        (typeform_event(5), "resolve"),
        (typeform_event(3), None),
        (typeform_event(2), "unresolve"),
    ),
    *_of(
        "outreach", standard, "c-42", ("webhook-signature", "webhook-timestamp"),
        (told("RESOLVED"), "resolve"),
        ({"type": "call.ended", "conversation": "c-42"}, None),
        secret=_WHSEC,
    ),
    *_of("dialler", svix, "c-42", ("svix-signature", "svix-timestamp"), (told("RESOLVED"), "resolve"), secret=_WHSEC),
]  # fmt: skip


def first_of(source):
    """The first example of a source."""
    return next(example for example in EXAMPLES if example.source == source)
