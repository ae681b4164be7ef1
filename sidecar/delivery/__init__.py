"""Outbox → central billing API: freezes an outcome into its CloudEvent and posts it until it is taken.

Owns: the posted bytes. Does not own: what is charged.
"""
