"""Training loops that others wrote: each adapter here watches one, and lets it be steered where the framework allows.

All rest on one mechanism (`watching.Watch`): the steps of the optimizers, and what PyTorch itself is told on the way.
"""
