"""Ages as of the last heartbeat."""

from sidecar.admin.metrics import Metrics
from sidecar.admin.vitals import Vitals
from sidecar.sessions.store import OutboxState


class NoStatus:
    def get(self, _slot):
        return 0


def shown(vitals):
    metrics = Metrics(NoStatus(), dict)
    vitals.show(metrics)
    lines = metrics.render().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_what_waits_grows_older_with_the_clock_while_nobody_answers():
    now = [10_000]
    vitals = Vitals(lambda: now[0])
    vitals.outbox = OutboxState(3, 4_000, 2)
    vitals.unread_since_ms = 9_500
    vitals.facts_wait(5, 7_000)
    now[0] = 20_000
    found = shown(vitals)
    assert found['sidecar_outbox_oldest_seconds{tenant="default"}'] == 16
    assert found['sidecar_dead_letters{tenant="default"}'] == 2
    assert found["sidecar_observer_lag_seconds"] == 10.5
    assert found["sidecar_journal_backlog_seconds"] == 13


def test_nothing_that_waits_has_no_age_and_a_clock_set_back_makes_none_negative():
    vitals = Vitals(lambda: 1_000, unread_since_ms=5_000)
    found = shown(vitals)
    assert found['sidecar_outbox_oldest_seconds{tenant="default"}'] == found["sidecar_journal_backlog_seconds"] == 0
    assert found["sidecar_observer_lag_seconds"] == 0


def test_facts_are_as_old_as_they_were_known_to_be_while_redis_is_away():
    now = [50_000]
    vitals = Vitals(lambda: now[0])
    vitals.facts_wait(1, 0)
    assert vitals.journal_since_ms == 50_000
    now[0] = 60_000
    vitals.facts_wait(4, 0)
    assert vitals.journal_since_ms == 50_000
    vitals.facts_wait(4, 48_000)
    vitals.facts_wait(3, 0)
    assert vitals.journal_since_ms == 48_000
    vitals.facts_wait(0, None)
    assert vitals.journal_since_ms is None
