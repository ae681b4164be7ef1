"""The file of exports: every error at once, with lines, and never a secret."""

from __future__ import annotations

import pytest

from sidecar.billing.exports.config import ExportsError, load_exports

KEY = "sk_live_never_to_be_seen"
GOOD = """
exports:
- name: stripe
  kind: stripe_v1
  secret: {env: STRIPE_KEY}
  customer: attributes.stripe_customer_id
  meters:
  - {code: outcomes, metrics: [resolved], plans: [fin]}
"""


def problems(source: str, **environ: str) -> list[str]:
    with pytest.raises(ExportsError) as caught:
        load_exports(source.encode(), "e.yaml", environ)
    return caught.value.problems


def test_a_good_file() -> None:
    [one] = load_exports(GOOD.encode(), "e.yaml", {"STRIPE_KEY": KEY})
    assert (one.name, one.endpoint.url, one.target.kind) == ("stripe", "https://api.stripe.com", "stripe_v1")
    assert one.meters["outcomes"].field == "value"
    assert one.customer_of({"id": "c", "attributes": {"stripe_customer_id": "cus_1"}}) == "cus_1"
    assert one.customer_of({"id": "c"}) is None
    assert KEY not in repr(one)
    assert one.traits.concurrency_max == 8
    more = GOOD.replace("- name: stripe", "- name: stripe\n  concurrency_max: 20")
    [one] = load_exports(more.encode(), "e.yaml", {"STRIPE_KEY": KEY})
    assert one.traits.concurrency_max == 20


def test_every_error_at_once_with_its_line() -> None:
    source = """
exports:
- name: a
  kind: stripe
  secret: {env: K}
  meters: [{code: x, metrics: []}]
- name: b
  kind: webhook
  secret: {env: K, file: /x}
  colour: red
  meters: [{code: x, metrics: [m]}]
- name: c
  kind: lago
  url: ftp://x
  secret: {file: /nowhere}
  batch_max: 500
  meters: [{code: x, metrics: [m]}, {code: x, metrics: [m]}]
"""
    found = problems(source, K=KEY)
    told = "\n".join(found)
    for line, part in (
        (4, "write one of openmeter"), (6, "at least 1 item"), (10, "colour: unknown field"), (14, "url must be like"),
        (15, "cannot be read"), (16, "takes at most 100"), (17, "stands twice"),
    ):  # fmt: skip
        assert any(one.startswith(f"e.yaml:{line}: ") and part in one for one in found), (line, part, told)
    assert KEY not in told


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("{env: STRIPE_KEY}", "{env: OTHER}"), "the variable OTHER is empty"),
        (("{env: STRIPE_KEY}", "{}"), "write env: NAME or file: PATH"),
        (("stripe_v1", "webhook\n  url: http://x/y"), "must hold whsec_"),
        (("stripe_v1", "webhook"), "url is missing"),
        (("customer: attributes.stripe_customer_id", "customer: name"), "customer"),
        (("- name: stripe", "- name: stripe\n  memory_hours: 0"), "memory_hours"),
        (
            ("- name: stripe", "- name: stripe\n  concurrency_max: 0"),
            "concurrency_max: Input should be greater than or",
        ),
        (("- name: stripe", "- name: stripe\n  concurrency_max: 65"), "concurrency_max: Input should be less than or"),
        (("exports:", "export:"), "unknown field"),
    ],
)
def test_one_error(change: tuple[str, str], part: str) -> None:
    found = problems(GOOD.replace(*change), STRIPE_KEY=KEY)
    assert part in "\n".join(found)
    assert KEY not in "\n".join(found)


def test_a_name_stands_once_and_a_secret_is_one_line() -> None:
    twice = GOOD + GOOD.replace("\nexports:\n", "")
    assert "the name 'stripe' stands twice" in "\n".join(problems(twice, STRIPE_KEY=KEY))
    assert "on one line" in "\n".join(problems(GOOD, STRIPE_KEY=f"{KEY}\nx"))
