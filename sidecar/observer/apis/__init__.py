"""The agent APIs that are understood, one module each. Owns `Call`; does not know sessions or rules."""
