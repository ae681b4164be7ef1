"""The reference central billing API: an append-only ledger, pure rating, invoices.

Owns: money. Does not own: facts, which it takes as they are posted. Imports `policy` alone of the sidecar.
"""
