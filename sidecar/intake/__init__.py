"""Signals and webhooks from outside the traffic, made durable in the journal before they are acknowledged.

Owns: `Signal`. Does not own: which session it reaches.
"""
