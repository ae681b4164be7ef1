"""Trying a plan before it counts: `sidecar plan test`, `evaluate` and what they read.

How it works. A test is a conversation written in YAML (`conversation`, read with lines by `loading`). `traffic` turns
its turns into the bytes that an agent and an API would have put on the wire. `stage` lets these through the real
observer, the plan's rules, the real scripts in a Redis of its own (`server`) and the rating of billing, under a clock
that only the test moves; `compare` holds what came out against what the test says, and `report` shows both. `labels`
and `evaluate` do the same with decisions that were made on live traffic and what people say of them.

Owns: the format of conversations, the virtual clock. Does not own: any rule of what an outcome is.
"""
