"""Sessions in Redis: the state table, the scripts that apply one fact atomically, the sweeper of deadlines.

Owns: `Outcome` (the frozen snapshot of a finalized session). Does not own: delivery, prices.
"""
