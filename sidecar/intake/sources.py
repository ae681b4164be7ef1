"""The known senders of webhooks as data: how each signs, where its events name themselves and their conversation.

One row for each sender; `verify.py` and `webhooks.py` know no vendor. What the events mean is the plan's to say
(`signals`); for a plan without them the same vendors' events are mapped in `policy/builtin/webhooks.yaml`.

Expressions are JMESPath over what a rule sees of a webhook: `source`, `payload` (the body), `headers` (lower case).
The name of an event is taken from signed bytes alone: a header that is not signed could be changed to make an old
delivery look new. Where a vendor gives its events no name, the digest of the body is the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["hmac-sha256", "hmac-sha1", "sha256", "rsa-sha256", "secret"]
TOLERANCE_MS = 5 * 60_000  # what all vendors who sign a time recommend; on the attempt, not on the event


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """One way to sign a request. Names of headers are lower case.

    `signature` is the header that carries it, after `prefix`; `several` when more than one may stand there, separated
    by spaces. `message` is what is signed: `{body}`, `{timestamp}`, `{id}`, `{method}`, `{uri}` and `{secret}` stand
    for the bytes as they were received, all else for itself. `timestamp` and `id` name the headers of these. `key` says
    how the configured secret is written.
    """

    signature: str
    algorithm: Algorithm
    message: str = "{body}"
    encoding: Literal["base64", "hex"] = "base64"
    prefix: str = ""
    several: bool = False
    timestamp: str = ""
    unit: Literal["s", "ms", "rfc3339"] = "s"
    id: str = ""
    key: Literal["text", "base64", "pem"] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One sender. Of several schemes the first whose signature header is there decides.

    `docs` are the vendor's pages that this row was written from. The event's name is the scheme's signed `id`, else
    the values of all expressions in `event_id`, else the digest of the body. `conversation` and `score` are shown to
    rules under these names. `challenge` is a header whose value a signed request wants to have back. In a `batch` the
    body may be a list of events. `subscribe` is what to have the vendor send, for the docs.
    """

    name: str
    title: str
    docs: tuple[str, ...]
    schemes: tuple[Scheme, ...]
    event_id: tuple[str, ...] = ()
    conversation: str = "payload.conversation"
    score: str = ""
    challenge: str = ""
    batch: bool = False
    subscribe: str = ""


# For senders that sign nothing, but let the operator add a header and write the body.
_SECRET_HEADERS = (
    Scheme(signature="x-webhook-secret", algorithm="secret"),
    Scheme(signature="authorization", algorithm="secret", prefix="Bearer "),
)


def _standard(prefix: str) -> Scheme:
    return Scheme(
        signature=f"{prefix}-signature",
        algorithm="hmac-sha256",
        message="{id}.{timestamp}.{body}",
        prefix="v1,",
        several=True,
        timestamp=f"{prefix}-timestamp",
        id=f"{prefix}-id",
        key="base64",
    )


STANDARD = Source(
    name="",
    title="Standard Webhooks (any other source)",
    docs=(
        "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
        "https://docs.svix.com/receiving/verifying-payloads/how-manual",
    ),
    schemes=(_standard("webhook"), _standard("svix")),
    subscribe="what your rules ask for",
)

_ALL = (
    Source(
        name="zendesk",
        title="Zendesk",
        docs=(
            "https://developer.zendesk.com/documentation/webhooks/verifying/",
            "https://developer.zendesk.com/api-reference/webhooks/event-types/ticket-events/",
        ),
        schemes=(
            Scheme(
                signature="x-zendesk-webhook-signature",
                algorithm="hmac-sha256",
                message="{timestamp}{body}",
                timestamp="x-zendesk-webhook-signature-timestamp",
                unit="rfc3339",
            ),
        ),
        # Only in Zendesk's own events; in the body that a trigger's author writes, `id` would be the ticket.
        event_id=("payload.zendesk_event_version && payload.id",),
        conversation="payload.detail.id",
        subscribe="ticket events: status changed, agent assignment changed, CSAT received",
    ),
    Source(
        name="intercom",
        title="Intercom",
        docs=(
            "https://developers.intercom.com/docs/webhooks",
            "https://developers.intercom.com/docs/references/2.16/webhooks/webhook-models",
            "https://developers.intercom.com/intercom-api-reference/v1.0/reference/signed-notifications",
        ),
        schemes=(
            Scheme(
                signature="x-hub-signature",
                algorithm="hmac-sha1",
                encoding="hex",
                prefix="sha1=",
            ),
        ),
        event_id=("payload.id",),
        conversation="payload.data.item.id",
        score="payload.data.item.conversation_rating.rating",
        subscribe="`conversation.admin.closed`, `.admin.assigned`, `.admin.opened`, `conversation.rating.added`",
    ),
    Source(
        name="hubspot",
        title="HubSpot",
        docs=(
            "https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation",
            "https://developers.hubspot.com/docs/faq/v1-request-validation",
            "https://developers.hubspot.com/docs/guides/crm/private-apps/webhooks",
        ),
        schemes=(
            Scheme(
                signature="x-hubspot-signature-v3",
                algorithm="hmac-sha256",
                message="{method}{uri}{body}{timestamp}",
                timestamp="x-hubspot-request-timestamp",
                unit="ms",
            ),
            # Version 1: a plain hash. It can be lengthened, but what is then appended is no JSON any more.
            Scheme(
                signature="x-hubspot-signature",
                algorithm="sha256",
                message="{secret}{body}",
                encoding="hex",
            ),
        ),
        # `eventId` alone is not unique, as HubSpot says; `attemptNumber` changes with each retry and is left out.
        event_id=(
            "payload.portalId",
            "payload.subscriptionId",
            "payload.eventId",
            "payload.objectId",
            "payload.occurredAt",
        ),
        conversation="payload.objectId",
        batch=True,
        subscribe="`conversation.propertyChange` of `status` and `assignedTo`",
    ),
    Source(
        name="front",
        title="Front (application webhooks)",
        docs=(
            "https://dev.frontapp.com/docs/application-webhooks",
            "https://dev.frontapp.com/reference/events",
        ),
        schemes=(
            Scheme(
                signature="x-front-signature",
                algorithm="hmac-sha256",
                message="{timestamp}:{body}",
                timestamp="x-front-request-timestamp",
                unit="ms",
            ),
        ),
        event_id=("payload.payload.id",),
        conversation="payload.payload.conversation.id",
        challenge="x-front-challenge",
        subscribe="conversation archived, assigned, reopened",
    ),
    Source(
        name="freshdesk",
        title="Freshdesk",
        docs=("https://support.freshdesk.com/support/solutions/articles/132589-using-webhooks-in-automation-rules",),
        schemes=_SECRET_HEADERS,
        event_id=("payload.event_id",),
        conversation="payload.conversation || payload.freshdesk_webhook.ticket_id",
        subscribe="an automation rule with the action *Trigger webhook*",
    ),
    Source(
        name="freshchat",
        title="Freshchat",
        docs=(
            "https://crmsupport.freshworks.com/support/solutions/articles/"
            "50000004461-freshchat-webhooks-payload-structure-and-authentication",
        ),
        schemes=(Scheme(signature="x-freshchat-signature", algorithm="rsa-sha256", key="pem"),),
        conversation="payload.data | (resolve || assignment || reopen).conversation.conversation_id",
        subscribe="conversation resolution, assignment, reopen",
    ),
    Source(
        name="gorgias",
        title="Gorgias",
        docs=("https://docs.gorgias.com/en-US/http-integrations-81822",),
        schemes=_SECRET_HEADERS,
        event_id=("payload.event_id",),
        conversation="payload.conversation || payload.ticket.id",
        subscribe="an HTTP integration on *ticket status updated*",
    ),
    Source(
        name="salesforce",
        title="Salesforce (flows)",
        docs=(
            "https://help.salesforce.com/apex/HTViewHelpDoc?id=platform.flow_http_callout_guidelines_authenticating.htm",
        ),
        schemes=_SECRET_HEADERS,
        event_id=("payload.event_id",),
        subscribe="a record-triggered flow with an HTTP callout",
    ),
    Source(
        name="chatwoot",
        title="Chatwoot",
        docs=(
            "https://github.com/chatwoot/chatwoot/blob/develop/swagger/definitions/resource/webhook.yml",
            "https://github.com/chatwoot/docs/blob/main/docs/product/others/webhook-events.md",
        ),
        schemes=(
            Scheme(
                signature="x-chatwoot-signature",
                algorithm="hmac-sha256",
                message="{timestamp}.{body}",
                encoding="hex",
                prefix="sha256=",
                timestamp="x-chatwoot-timestamp",
            ),
        ),
        # X-Chatwoot-Delivery is not signed: the body's digest names the event.
        conversation="payload.conversation.id || payload.id",
        score="payload.content_attributes.submitted_values.csat_survey_response.rating",
        subscribe="`conversation_status_changed`, `conversation_updated`, `message_updated`",
    ),
    Source(
        name="typeform",
        title="Typeform",
        docs=(
            "https://www.typeform.com/developers/webhooks/secure-your-webhooks/",
            "https://www.typeform.com/developers/webhooks/example-payload/",
        ),
        schemes=(Scheme(signature="typeform-signature", algorithm="hmac-sha256", prefix="sha256="),),
        event_id=("payload.event_id",),
        conversation="payload.form_response.hidden.conversation_id",
        score="payload.form_response.answers[?field.type=='rating'].number | [0]",
        subscribe="a form with a rating question and the hidden field `conversation_id`",
    ),
)

SOURCES = {source.name: source for source in _ALL}


def source_of(name: str) -> Source:
    """The row of a source by its name; a name that no vendor has speaks Standard Webhooks."""
    return SOURCES.get(name, STANDARD)
