"""Rating: (plans, customer history, ledger rows) → invoice. Pure and exact; the same rows give the same cents.

How it works. A period is cut into sections, each rated by one plan (`sections`). At every state of a period's books,
with what entered and without what was taken back, each charge of each section counts some units (`usage`); what changes
from one state to the next are movements (`movements`). A section costs what its units at a state cost, guardrails
included (`cost`, `price`), and every amount is a difference of such costs: a period's lines are its sections before
anything is taken back, its adjustments what late events add to closed sections, its credits what was taken back, in it
or in an earlier one (`invoice`). So an invoice never changes because of what happens later, and the invoices of an
account always add up to what its standing rows cost. How many outcomes are charged (`feeding`, `cost.Charged`) moves
and is summed in the same way, and so agrees with invoices.
"""
