"""Alembic migrations of the ledger, run when the billing service starts. A revision that was released never changes."""
