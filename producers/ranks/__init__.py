"""Who this rank is among the others, and how all come to one word: identity, registers, votes, transactions."""
