"""Outcome sidecar: what an AI agent achieved, recognised from its traffic and billed once.

Follow one exchange through the packages, in this order:

1. ``proxy``     forwards the bytes untouched and copies them onto the queue (``wire.ring``)
2. ``observer``  puts the copies together into exchanges, decodes them, finds the conversation: an observation
3. ``policy``    the rate plan: its rules turn what was seen into effects (resolve, escalate, …)
4. ``intake``    signals and webhooks: the same effects, from outside the traffic
5. ``sessions``  applies observations and signals to sessions in Redis; finalizes them into outcomes
6. ``delivery``  posts outcomes to the central billing API, once each
7. ``billing``   the central billing API: ledger, rating, invoice
"""

__version__ = "0.1.0"
