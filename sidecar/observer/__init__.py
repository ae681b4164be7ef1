"""Queue records → exchanges → observations → journal. Texts are seen here, in memory, and go no further.

Owns: `Exchange` and `Observation`. Does not own: what an observation does to a session.
"""
