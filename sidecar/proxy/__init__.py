"""Process 1: forwards every byte untouched, copies it onto the queue, answers health, watches its children.

Owns: the sockets. Does not own: anything that could wait. It imports `wire`, uvloop, httptools, the stdlib.
"""
