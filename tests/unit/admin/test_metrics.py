"""How a deployment is wired, as Prometheus reads it."""

from __future__ import annotations

from sidecar.admin.metrics import Metrics


class NoStatus:
    def get(self, _slot) -> int:
        return 0


def rendered(counters: dict[str, int]) -> dict[str, str]:
    lines = Metrics(NoStatus(), lambda: counters).render().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_shares_of_exchanges_with_an_id_and_a_customer() -> None:
    shares = {"exchanges_with_id": 10, "exchanges_with_customer": 30}
    found = rendered({"exchanges": 40, "opened": 8, "found_by:text": 3} | shares)
    assert found["sidecar_exchanges_with_id_ratio"] == "0.25"
    assert found["sidecar_exchanges_with_customer_ratio"] == "0.75"
    assert found["sidecar_exchanges_per_session"] == "5.0"
    assert found['sidecar_tenant_count{what="found_by:text"}'] == "3.0"


def test_nothing_is_claimed_before_there_is_traffic() -> None:
    assert not [name for name in rendered({"opened": 0}) if "ratio" in name or "per_session" in name]
