"""Are the calls of a conversation found to be one? Seeded conversations as bytes, two replicas, precision and recall.

`dialects` puts a history on the wire as each API has it, `talk` makes one conversation of it, `conversations` writes
those of every kind, `world` lets two replicas read them, `score` compares what they found with what was written.
`python -m bench.stitch` runs it all.
"""
