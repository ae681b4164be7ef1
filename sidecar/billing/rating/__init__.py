"""Rating: (plans, customer history, period, ledger rows) → invoice. Pure and exact; the same rows give the same cents.

How it works. A row is *live* until the time of a later revision of its session. `cost(period, horizon)` is what a
period costs by the rows that were live just before the horizon, guardrails included; every amount is the difference
of such costs. The invoice of a period is its cost at its own beginning (nothing of it taken back yet), and its
credits are what all periods up to it cost at its beginning minus what they cost at its end. So an invoice never
changes because of what happens later, and the invoices of an account always add up to what its live rows cost.
"""
