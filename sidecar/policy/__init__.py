"""The rate plan as data: its model, its conditions, its rules. Pure; shared by the observer and by billing.

Owns: `Effect` (what a matched rule says) and `Terms` (what the plan says about sessions).
Does not own: the arithmetic of prices.
"""
