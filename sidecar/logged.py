"""Every line that the log may have: its name, which does not change, and the sentence that goes with it.

Lines name sessions and outcomes by `session_id` and `outcome_id`. No line has a word of what passed: no text, header,
credential, reason or attribute, and of an exception its kind and place alone.
"""

from __future__ import annotations

_PROXY = {
    "child_exited": "a child process ended; it is started again",
    "child_killed": "a child process did not end in time",
    "child_not_started": "a child process could not be started; it is tried again",
    "child_started": "a child process was started",
    "certificates_refused": "changed certificate files cannot be used; the former ones stay",
    "certificates_reloaded": "changed certificate files are used from now on",
    "draining": "no new exchanges are taken; open ones finish",
    "file_limit_low": "the limit of open files does not allow as many connections as are set",
    "proxy_not_started": "the proxy cannot start",
    "proxy_stopped": "the proxy has stopped",
    "queue_notice": "what was found at the queue's place",
}
_OBSERVER = {
    "observer_started": "the observer reads the queue",
    "observer_stopped": "the observer has handed over and stopped",
    "exchange_not_observed": "an exchange could not be observed: a defect",
    "exchange_not_read": "an exchange could not be read by its API's module: a defect",
    "fact_applied": "an observation or a signal reached Redis",
    "fact_refused": "a fact can never be applied; it is passed over",
    "signal_late": "a signal came too late: its session is forgotten; it has no effect",
    "signal_ambiguous": "a signal's id is that of several conversations, and its customer tells none; it has no effect",
    "webhook_over": "too many signals wait for a conversation that no traffic has shown; their sender keeps them",
    "facts_applied": "facts are applied",
    "facts_wait": "facts wait in the journal",
    "facts_left": "facts are left here; other replicas wait for them",
    "leave_not_told": "redis was not told that this replica leaves",
    "admin_request_failed": "a request to the admin API failed: a defect",
    "setting_warning": "something to look at in the environment",
}
_JOURNAL = {
    "journal_full": "journal cannot take more; copies wait in the queue",
    "journal_lost": "the journal is gone; what Redis has not applied of it is lost",
    "journal_recovered": "the journal was begun anew",
    "journal_row_unreadable": "a journal row cannot be read; it is passed over",
    "cursor_not_saved": "the journal's disk refuses; how far it is applied is saved later",
}
_REDIS = {
    "redis_up": "redis answers",
    "redis_down": "redis takes no facts; observations wait in the journal",
    "redis_data_lost": "redis lost its data; the journal is applied again",
    "mark_restored": "a producer's mark was gone from redis; it was put back",
    "facts_lost": "facts are lost: neither Redis nor the journal has them",
    "replay_not_waited_for": "another replica's journal does not come on; what it holds may get other session numbers",
    "hash_key_changed": "this observer starts again with the hash key that is in force",
    "sweep_failed": "deadlines wait for redis",
    "mark_lagging": "deadlines wait for a producer that does not come on",
    "producers_pruned": "producers presumed dead; nobody waits for them any more",
}
_DELIVERY = {
    "outcome_delivered": "the billing API has an outcome",
    "outcome_refused": "an event was refused; it is among the dead letters",
    "dead_letters_full": "the dead letters are full: redeliver them or delete them",
    "delivery_put_aside": "the billing API fails at these events; they are put aside",
    "deliveries_taken_over": "took over the deliveries of another courier",
    "outbox_not_read": "the outbox cannot be read",
    "billing_down": "the billing API does not take outcomes; they wait in the outbox",
    "billing_up": "the billing API takes outcomes",
}
_PLANS = {
    "plan_in_force": "plan in force",
    "plan_refused": "plan refused; the former one stays in force",
    "plan_refused_at_start": "plan refused; the last good one is in force",
    "plan_right_again": "the plan's file is right again",
    "plan_not_kept": "the plan in force is not on disk yet",
    "candidate_started": "a candidate plan is judged beside the live one",
    "candidate_changed": "candidate plan changed",
    "candidate_refused": "candidate plan refused; the former one is judged on",
    "candidate_refused_at_start": "candidate plan refused; none is judged until the observer starts again",
    "candidate_failed": "an exchange could not be judged by the candidate: a defect",
    "candidate_waits": "the candidate waits for redis",
}
_TELEMETRY = {
    "otel_started": "spans, metrics and outcomes go to an OpenTelemetry collector",
    "otel_not_started": "OpenTelemetry's exporters could not be made; nothing is sent",
    "otel_failed": "a span or a record could not be made, or not be sent",
    "otel_up": "the OpenTelemetry collector takes what is sent",
    "otel_down": "the OpenTelemetry collector does not take what is sent; it is dropped",
}
_BILLING = {
    "database_unusable": "the ledger's database cannot be used",
    "database_failed": "the ledger's database failed at a request",
    "request_failed": "a request to the billing API failed: a defect",
    "cannot_listen": "the billing API cannot listen",
    "stopping": "the billing API stops",
    "variable_unknown": "an unknown variable is ignored",
    "metric_unknown": "no plan has this metric of an exports' meter",
    "alerts_secret_made": "alerts are signed with a secret made by this ledger",
    "alert_not_delivered": "an alert was not delivered; it is tried again",
    "alert_given_up": "an alert was not delivered and is given up",
    "address_note_gone": "the note of the address was gone already",
    "page_closed": "a page of the console that was kept current was closed",
    "run_not_started": "the process of a long work could not be started",
    "run_failed": "a long work (a backtest) failed",
    "run_ended_early": "the process of a long work ended before its work",
    "period_closed": "a period was closed",
    "upkeep_failed": "upkeep failed; it is tried again",
    "export_not_taken": "another billing system did not take an entry",
}
_ANY = {
    "listening": "a proxy, or a billing API, takes connections",
    "library": "what another library warns of; its own words only as far as they are always the same",
    "crashed": "the process ends because of a defect",
}
SECTIONS: dict[str, dict[str, str]] = {
    "The proxy": _PROXY,
    "The observer": _OBSERVER,
    "The journal": _JOURNAL,
    "Redis and replicas": _REDIS,
    "Delivery": _DELIVERY,
    "Plans": _PLANS,
    "OpenTelemetry": _TELEMETRY,
    "The billing API": _BILLING,
    "Any of them": _ANY,
}
LINES: dict[str, str] = {name: said for section in SECTIONS.values() for name, said in section.items()}
