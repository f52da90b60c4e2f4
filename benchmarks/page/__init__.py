"""How soon the control room shows what there is, and what goes wrong: see `__main__`."""
