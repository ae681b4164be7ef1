"""What the two processes share: HTTP/1.1 framing, and the queue between them.

Owns: where a message starts and ends; the ring's layout. Does not own: what a message means.
Imports the standard library and httptools only, so that the hot path stays small.
"""
