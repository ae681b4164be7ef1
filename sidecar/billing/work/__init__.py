"""Long work over the ledger: a backtest, shadow invoices, the reconciliation of exports.

Owns: who works when, in a process of its own, and how far it is. Does not own: what is worked out, which is rating's
and exports'. Runs are rows, so that any replica shows them; the replica that was asked does the work.
"""
