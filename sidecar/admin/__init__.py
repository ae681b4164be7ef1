"""The observer's HTTP side: signals, sessions, metrics; and `sidecar doctor`.

Owns: the admin API's shapes. Does not own: health, which the proxy answers.
"""
