"""The books: append-only rows in SQL (SQLite by default, PostgreSQL by URL), and nothing about prices.

Owns: the schema, transactions, identity of events. Does not own: what anything costs.
"""
