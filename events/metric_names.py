"""The names under which a run's loss, gradient norm and learning rate are logged: what it is judged by.

Read by `stream_processors.gathering`, which judges, and by `producers.thinning`, which never leaves one out.
"""

LOSS_NAMES = ("loss", "train_loss", "train/loss")
GRAD_NAMES = ("grad_norm", "train/grad_norm")
LR_NAMES = ("lr", "learning_rate", "train/lr")
JUDGED = frozenset((*LOSS_NAMES, *GRAD_NAMES, *LR_NAMES))
