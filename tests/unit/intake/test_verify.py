"""Signatures: what vendors publish is accepted, and nothing that differs from it by a bit."""

import base64
import hashlib
import hmac
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vendors import EXAMPLES, RSA_PEM, URL, first_of, standard

from sidecar.intake.sources import SOURCES, source_of
from sidecar.intake.verify import Delivery, RefusedError, secret_fault, verify

NOW_S = 1_795_000_000
# Signing knows no payload: one example for each way to sign.
SIGNED = list({(example.source, example.sign): example for example in EXAMPLES}.values())
EACH = pytest.mark.parametrize("example", SIGNED, ids=lambda one: f"{one.source}-{one.sign.__name__}")

# Signatures that the vendors publish with the bytes that they are of.
HUBSPOT_BODY = (
    '[{"eventId":1,"subscriptionId":12345,"portalId":62515,"occurredAt":1564113600000,'
    '"subscriptionType":"contact.creation","attemptNumber":0,"objectId":123,"changeSource":"CRM","changeFlag":"NEW",'
    '"appId":54321}]'
)
# https://github.com/nyaruka/courier: a delivery that Freshchat made, and its account's key
FRESHCHAT_KEY = (
    "-----BEGIN RSA PUBLIC KEY----- "
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAuGJLF4hTTtxWogT6dNkGf3CEgLAR2mGJzlds5cNb"
    "rHFoJNFnmVhkRYGzLYxx4EtDiezNCZVHfyMI2AKuNSQW2fEdDatVIG+q3Zr/X9eeDl8kQOGy804J/fgCYDrN8RQu0n5Dh1inv4puca0wb29SCvoAwrWb"
    "33ehDBIvv6+rUKBdjtv2xTV65kNiVDo5VRCaYRVeE10osxeONgw55HVY4nczuxnR+dmc2282de6WHe5LXtr0ZBdJ8yttFOLIluZ/sNM5DIWZBkIWQhyT"
    "581tbA7bTpsIbrT/IMBlmioIILw8WGtI7zcmNkjU5dnq5HnlVKEDhj/Ug/dLiyno8+Vp7QIDAQAB -----END RSA PUBLIC KEY-----"
)
FRESHCHAT_BODY = (
    '{"actor":{"actor_type":"user","actor_id":"882f3926-b292-414b-a411-96380db373cd"},"action":"message_create",'
    '"action_time":"2019-06-21T17:43:20.875Z","data":{"message":{"message_parts":[{"text":{"content":"Test 2"}}],'
    '"app_id":"55b190fa-5d3c-45c4-bc49-74ddcfcf53d7","actor_id":"882f3926-b292-414b-a411-96380db373cd",'
    '"id":"7a454fde-c720-4c97-a61d-0ffe70449eb6","channel_id":"c8fddfaf-622a-4a0e-b060-4f3ccbeab606",'
    '"conversation_id":"c327498e-f713-481e-8d83-0603e03d2521","message_type":"normal","actor_type":"user",'
    '"created_time":"2019-06-21T17:43:20.866Z"}}}'
)
FRESHCHAT_SIGNATURE = (
    "AhrmypOSWoewHG6LmIRuWjxyokuMDmPklrSU9p0gpUNjdSRCJzvpL6rjuTi5poV/ZLzWRWNM7X9yWjT5m9YFPshYrvigcd1ph4Ot2xmaJGYoUNJHijQc"
    "cE6oDtDIp6i/8oLRafHgObQnGukZWPbP9OE5EiKz/VcsMP0Wv7hawI/sfIviM0w+6fNOKXWi0jDBH9ap1mj5CqOUOojni7OD5iYmIrjV/h33dyNmbvAt"
    "a9E+trzcEhYqxfHIN4Z8R2FsatfRHWicoQ4PE5cQ8+UONVya8qr85nQ9w8N7Ql7yNg9fEViYG4/W/JnGEbPPEf8WrYtKzoVyuupDz4mVHdfKWg=="
)
PUBLISHED = {
    # https://github.com/standard-webhooks/standard-webhooks: the test vector of its libraries
    "standard": (
        "outreach",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        '{"test": 2432232314}',
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        1_614_265_330_000,
    ),
    # https://developers.hubspot.com/docs/faq/v1-request-validation
    "hubspot-v1": (
        "hubspot",
        "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy",
        HUBSPOT_BODY,
        {"x-hubspot-signature": "232db2615f3d666fe21a8ec971ac7b5402d33b9a925784df3ca654d05f4817de"},
        0,
    ),
    # https://github.com/HubSpot/hubspot-api-python/blob/master/tests/spec/utils/test_signature.py
    "hubspot-v3": (
        "hubspot",
        "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy",
        "{'example_field':'example_value'}",
        {
            "x-hubspot-signature-v3": "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y=",
            "x-hubspot-request-timestamp": "1693657560000",
        },
        1_693_657_560_000,
    ),
    "freshchat": (
        "freshchat",
        FRESHCHAT_KEY,
        FRESHCHAT_BODY,
        {"x-freshchat-signature": FRESHCHAT_SIGNATURE},
        0,
    ),
}


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}


def check(example, headers, *, body=None, secrets=None, now_ms=NOW_S * 1000, uri=None, method="POST"):
    delivery = Delivery(method, uri or example.uri, lower(headers), example.body if body is None else body)
    return verify(source_of(example.source), secrets or [example.secret], delivery, now_ms)


def refusal(*arguments, **more):
    with pytest.raises(RefusedError) as caught:
        check(*arguments, **more)
    return caught.value.reason


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_vendors_publish_is_accepted_and_no_other_body(name):
    source, secret, body, headers, now_ms = PUBLISHED[name]
    uri = "https://www.example.com/webhook_uri"
    verify(source_of(source), [secret], Delivery("POST", uri, headers, body.encode()), now_ms)
    with pytest.raises(RefusedError, match="fits no secret"):
        verify(source_of(source), [secret], Delivery("POST", uri, headers, body.encode() + b" "), now_ms)


@EACH
def test_documented_examples_are_accepted(example):
    assert check(example, example.headers(NOW_S)).signature == example.signature.lower()


@EACH
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_one_bit_flipped_is_refused(example, data):
    """In the signature, in the signed time, in the body of what is signed: each of it, anywhere."""
    headers = example.headers(NOW_S)
    body = example.body
    places = [name for name in (example.signature, example.timestamp) if name]
    if example.sign.__name__ not in {"secret_header", "bearer"}:  # these sign no body
        places.append("body")
    place = data.draw(st.sampled_from(places))
    flipped = bytearray(body if place == "body" else headers[place].encode())
    bit = data.draw(st.integers(0, len(flipped) * 8 - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    if place == "body":
        body = bytes(flipped)
    else:
        headers[place] = flipped.decode("utf-8", "surrogateescape")
    assert refusal(example, headers, body=body) == "forged"


@EACH
def test_without_a_signature_or_with_another_secret_it_is_forged(example):
    headers = example.headers(NOW_S)
    assert refusal(example, {}) == "forged"
    unsigned = {name: value for name, value in headers.items() if "signature" not in name.lower()}
    if len(unsigned) < len(headers):
        assert refusal(example, unsigned) == "forged"
    other = FRESHCHAT_KEY if example.secret == RSA_PEM else "another secret"
    assert refusal(example, headers, secrets=[other]) == "forged"
    if example.timestamp:
        del headers[example.timestamp]
        assert refusal(example, headers) == "forged"


@EACH
def test_the_replay_window(example):
    headers = example.headers(NOW_S)
    for late_ms in (-300_000, 300_000):
        check(example, headers, now_ms=NOW_S * 1000 + late_ms)
    for late_ms in (-300_001, 300_001, 86_400_000):
        if example.timestamp:
            assert refusal(example, headers, now_ms=NOW_S * 1000 + late_ms) == "stale"
        else:
            check(example, headers, now_ms=NOW_S * 1000 + late_ms)  # its vendor signs no time


@EACH
def test_both_secrets_are_accepted_during_a_rotation(example):
    other = FRESHCHAT_KEY if example.secret == RSA_PEM else "another secret"
    check(example, example.headers(NOW_S), secrets=[other, example.secret])
    check(example, example.headers(NOW_S), secrets=[example.secret, other])


def test_a_sender_that_rotates_writes_several_signatures():
    example = first_of("outreach")
    headers = example.headers(NOW_S)
    old = standard("whsec_" + base64.b64encode(b"old").decode(), example.body, NOW_S, "")["webhook-signature"]
    good = headers["webhook-signature"]
    for value in (f"{old} {good}", f"{good} {old}", f"v1a,abc {good}"):
        check(example, headers | {"webhook-signature": value})
    assert refusal(example, headers | {"webhook-signature": f"{old} v2,{good[3:]}"}) == "forged"
    # Not for ever: no header can make us compare thousands.
    assert refusal(example, headers | {"webhook-signature": f"{old} " * 1000 + good}) == "forged"


def test_a_secret_without_whsec_is_tried_as_base64_and_as_it_stands():
    example = first_of("outreach")
    plain = "correct horse battery staple"
    signed = f"msg_1.{NOW_S}.".encode() + example.body
    signature = base64.b64encode(hmac.new(plain.encode(), signed, hashlib.sha256).digest()).decode()
    headers = example.headers(NOW_S)
    check(example, headers | {"webhook-signature": f"v1,{signature}"}, secrets=[plain])
    check(example, headers, secrets=[example.secret.removeprefix("whsec_")])


def test_hubspot_signs_method_and_url():
    example = first_of("hubspot")
    headers = example.headers(NOW_S)
    for changed in ({"method": "PUT"}, {"uri": URL + "/v1/webhooks/hubspot?x=1"}, {"uri": example.uri + "/"}):
        assert refusal(example, headers, **changed) == "forged"
    with pytest.raises(RefusedError, match="SIDECAR_WEBHOOK_BASE_URL"):
        check(example, headers, uri="https://other.example.com/v1/webhooks/hubspot")


def test_hubspot_decodes_twelve_characters_of_the_url_and_no_others():
    example = first_of("hubspot")
    seen = f"{URL}/v1/webhooks/hubspot?src=hs%3Aapp%2fv3&x=%28a%29%20"
    signed = f"{URL}/v1/webhooks/hubspot?src=hs:app/v3&x=(a)%20"
    check(example, example.sign(example.secret, example.body, NOW_S, signed), uri=seen)


def test_an_older_signature_does_not_save_a_wrong_newer_one():
    example = first_of("hubspot")
    headers = example.headers(NOW_S)
    assert "X-HubSpot-Signature" in headers
    assert refusal(example, headers | {"X-HubSpot-Signature-v3": "AAAA"}) == "forged"
    assert refusal(example, headers, now_ms=(NOW_S + 301) * 1000) == "stale"


@pytest.mark.parametrize("time", ["", "soon", "-1", "1e9", "9" * 16, "١٧٩٥٠٠٠٠٠٠"])
def test_a_time_that_is_none_is_stale_even_when_signed(time):
    example = first_of("chatwoot")
    signature = hmac.new(example.secret.encode(), time.encode() + b"." + example.body, hashlib.sha256).hexdigest()
    headers = {"X-Chatwoot-Signature": "sha256=" + signature, "X-Chatwoot-Timestamp": time}
    assert refusal(example, headers) == "stale"


@pytest.mark.parametrize(
    ("source", "secret", "says"),
    [
        ("zendesk", "anything", None),
        ("outreach", "anything at all", None),
        ("outreach", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None),
        ("outreach", "whsec_no base64", "no base64"),
        ("outreach", "whpk_MfKQ", "asymmetric"),
        ("freshchat", FRESHCHAT_KEY, None),
        ("freshchat", RSA_PEM.replace("\n", "\\n"), None),
        ("freshchat", RSA_PEM[:100], "no RSA public key"),
        ("freshchat", "a shared secret", "no RSA public key"),
    ],
    ids=range(9),
)
def test_secrets_are_checked_at_the_start(source, secret, says):
    fault = secret_fault(source_of(source), secret)
    assert (fault is None) if says is None else says in fault


HEADERS = sorted(
    {
        name
        for one in [*SOURCES.values(), source_of("")]
        for scheme in one.schemes
        for name in (scheme.signature, scheme.timestamp, scheme.id)
        if name
    }
)
WRITTEN = st.text("0123456789aZ=,.:+/ -TvB1é", max_size=40)
RAW = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def test_only_who_needs_rsa_pays_for_it():
    script = "import sys, sidecar.app; sys.exit('cryptography.hazmat.bindings._rust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@settings(max_examples=200, deadline=None)
@given(
    source=st.sampled_from([*SOURCES, "outreach"]),
    headers=st.dictionaries(st.sampled_from(HEADERS), WRITTEN | RAW),
    body=st.binary(max_size=50),
)
def test_whatever_comes_is_refused_in_words(source, headers, body):
    secret = FRESHCHAT_KEY if source == "freshchat" else "a secret nobody guesses"
    with pytest.raises(RefusedError):
        verify(source_of(source), [secret], Delivery("POST", URL, headers, body), NOW_S * 1000)
