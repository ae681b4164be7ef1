"""Usage out of the ledger into the billing systems that people already have, each outcome once.

Owns: which units of which outcome went to which meter, and what was answered. Does not own: what counts; that is
`rating`, asked for the rows as they stand. Nothing here can hold up or change an invoice.

How it works. An event of the ledger, or a decision, leaves a note in `pending` in its own transaction. The transaction
that takes the note off writes what it means for the meters into `export_events`: the units that each outcome counts
now, less what was written for it before. So a reversal is a negative entry, a release a late positive one, and doing it
twice adds nothing. The sender claims entries that are due, freezes the bytes of each before it sends them for the first
time, and keeps sending the same bytes until there is an answer, or until the target may have forgotten the id.
"""
