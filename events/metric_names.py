"""The names under which what a run is judged by is logged: loss, gradient norm, learning rate, and where time goes.

Read by `stream_processors.gathering`, which judges, and by `producers.metrics.thinning`, which never leaves out what
`Finite` and `Stable` are judged by (`JUDGED`).
"""

LOSS_NAMES = ("loss", "train_loss", "train/loss")
GRAD_NAMES = ("grad_norm", "train/grad_norm")
LR_NAMES = ("lr", "learning_rate", "train/lr")
WEIGHTS_NAMES = ("param_norm", "weights_norm", "weight_norm", "train/param_norm", "train/weight_norm")
LOCAL_NORM_NAMES = ("local_grad_norm", "train/local_grad_norm")
"""The norms that tell ranks apart: of the weights, and of a rank's own gradient, before it is reduced."""
JUDGED = frozenset((*LOSS_NAMES, *GRAD_NAMES, *LR_NAMES))
TOLD: dict[str, tuple[str, ...]] = {
    "lr": LR_NAMES,
    "throughput": ("throughput", "tokens_per_second", "samples_per_second", "tokens_per_s", "samples_per_s"),
    "step_s": ("step_s", "step_time_s", "step_time"),
    "data_wait_s": ("data_wait_s", "train/data_wait_s"),
    "compute_s": ("compute_s", "train/compute_s"),
    "comm_s": ("comm_s", "train/comm_s"),
    "update_ratio": ("update_ratio", "update_to_weight"),
}
"""What rank 0 tells of a step beside loss and gradient norm: by the name it is judged under, the names it may have."""
