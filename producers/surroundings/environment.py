"""What a run runs in and on, found without being told: command, host, versions, commit, devices, launcher, seeds.

`producers.beside` looks on a thread of its own while `start_run` does its other work, for `look` reads files and may
start `git`. Everything is optional and bounded: what cannot be found is left out, and nothing raises. Nothing is
imported that the script has not imported, and no device is initialised. Secrets are redacted here.
"""

import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...events.redaction import redacted, redacted_arguments
from ..plain import Reading
from ..ranks.context import host, script_folder
from .git_state import git_state

ARGUMENTS, ARGUMENT_CHARS = 200, 1_000
SEEDS = 50

_BY_ONE_NAME = (
    *("torch", "torchvision", "torchaudio", "torchdata", "triton", "numpy", "scipy", "pandas", "polars", "pyarrow"),
    *("transformers", "tokenizers", "datasets", "accelerate", "peft", "trl", "diffusers", "safetensors", "lightning"),
    *("deepspeed", "bitsandbytes", "xformers", "timm", "ray", "webdataset", "omegaconf"),
    *("jax", "jaxlib", "flax", "optax", "tensorflow", "keras"),
)
PACKAGES: Mapping[str, str] = dict(zip(_BY_ONE_NAME, _BY_ONE_NAME, strict=True)) | {
    "flash_attn": "flash-attn",
    "hydra": "hydra-core",
    "megatron": "megatron-core",
    "pytorch_lightning": "pytorch-lightning",
    "sklearn": "scikit-learn",
    "transformer_engine": "transformer-engine",
}
"""Module and distribution of what a training may depend on: told where the script has imported it."""

LAUNCHERS: Mapping[str, tuple[str, ...]] = {
    "torchrun": (
        *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "LOCAL_WORLD_SIZE"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR"),
    ),
    "slurm": (
        *("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_CLUSTER_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_ACCOUNT"),
        *("SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"),
        *("SLURM_RESTART_COUNT", "SLURM_JOB_QOS", "SLURM_STEP_ID"),
    ),
    "kubernetes": ("POD_NAME", "POD_NAMESPACE", "NODE_NAME", "JOB_NAME", "JOB_COMPLETION_INDEX"),
}
"""By launcher, the variables in which it says what it started. No other variable of the environment is told."""

_MARKERS = {"torchrun": "TORCHELASTIC_RUN_ID", "slurm": "SLURM_JOB_ID", "kubernetes": "KUBERNETES_SERVICE_HOST"}
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NVIDIA = Path("/proc/driver/nvidia")

Found = dict[str, Any]


def at_once(environ: Mapping[str, str], config: object) -> Found:
    """What costs a millisecond: read from this process alone."""
    found: Found = {}
    for name, find in (
        ("command", command),
        ("host", host),
        ("python", platform.python_version),
        ("platform", lambda: f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("cpus", lambda: len(os.sched_getaffinity(0))),
        ("packages", packages),
        ("cuda", cuda),
        ("launcher", lambda: launchers(environ)),
        ("seeds", lambda: seeds(config, environ)),
    ):
        _add(found, name, find)
    return found


def by_looking(devices: Callable[[], Found]) -> Iterable[Callable[[], Found]]:
    """What may take a while: each returns a part of the environment. `devices` asks NVML."""
    return (lambda: {"git": git_state(script_folder())}, lambda: {"gpus": devices() or gpus_of_the_driver()})


def command() -> list[str]:
    """How the script was started. The text of a `python -c` is no part of it."""
    given = sys.orig_argv
    if "-c" in given and sys.argv[:1] == ["-c"]:
        at = given.index("-c")
        given = [*given[: at + 1], "…", *given[at + 2 :]]
    told = redacted_arguments([argument[:ARGUMENT_CHARS] for argument in given[:ARGUMENTS]])
    return told if len(given) <= ARGUMENTS else [*told, f"… and {len(given) - ARGUMENTS} more"]


def packages() -> dict[str, str]:
    """The versions of what the script has imported by now."""
    loaded = {module: PACKAGES[module] for module in PACKAGES if module in sys.modules}
    found = {name: version for module, name in loaded.items() if (version := _version(module, name))}
    return found | {"pilothouse": _version("pilothouse", "pilothouse")}


def _version(module: str, distribution: str) -> str:
    told = getattr(sys.modules.get(module), "__version__", None)
    if isinstance(told, str):
        return told[:100]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)[:100]
    except PackageNotFoundError:
        return ""


def cuda() -> dict[str, str]:
    """What PyTorch was built for; empty without PyTorch."""
    built = getattr(sys.modules.get("torch"), "version", None)
    told = {name: getattr(built, name, None) for name in ("cuda", "hip")}
    return {name: version for name, version in told.items() if isinstance(version, str)}


def launchers(environ: Mapping[str, str]) -> Found:
    """Who started this process, and what it said: torchrun, Slurm, Kubernetes."""
    found: Found = {}
    for name, keys in LAUNCHERS.items():
        if environ.get(_MARKERS[name]):
            told = {key.lower(): environ[key][:ARGUMENT_CHARS] for key in keys if environ.get(key)}
            found[name] = redacted(told) | (_pod(environ, told) if name == "kubernetes" else {})
    return found


def _pod(environ: Mapping[str, str], told: Mapping[str, str]) -> dict[str, str]:
    """What a pod knows of itself where nobody told it by the downward API."""
    found = {"pod_name": environ.get("HOSTNAME", "")} if "pod_name" not in told else {}
    if "pod_namespace" not in told:
        with suppress(OSError, ValueError):  # an account is not mounted into every pod
            found["pod_namespace"] = _NAMESPACE.read_text()[:200].strip()
    return {name: text for name, text in found.items() if text}


def cluster(environ: Mapping[str, str]) -> str:
    """The cluster's name, where the scheduler says it."""
    return environ.get("SLURM_CLUSTER_NAME", "")[:200]


def seeds(config: object, environ: Mapping[str, str]) -> Found:
    """The seeds that were given: what the configuration calls one, PYTHONHASHSEED, and PyTorch's."""
    found: Found = {}
    _seeds_in(Reading().plain(config, "config"), "", found)
    if environ.get("PYTHONHASHSEED", "random") != "random":
        found["PYTHONHASHSEED"] = environ["PYTHONHASHSEED"][:20]
    if (torch := sys.modules.get("torch")) is not None:
        found["torch"] = torch.initial_seed()
    return found


def _seeds_in(value: object, path: str, found: Found) -> None:
    items = value.items() if isinstance(value, dict) else ()
    for name, item in items:
        here = f"{path}.{name}" if path else str(name)
        if isinstance(item, dict):
            _seeds_in(item, here, found)
        elif "seed" in str(name).lower() and isinstance(item, int) and len(found) < SEEDS:
            found[here] = item


def gpus_of_the_driver(folder: Path = _NVIDIA) -> Found:
    """NVIDIA's GPUs as its kernel driver lists them, where its library cannot be asked; empty without a driver."""
    try:
        files = sorted((folder / "gpus").glob("*/information"))
        models = [line.partition(":")[2].strip() for file in files for line in _lines(file) if line.startswith("Model")]
    except OSError:
        return {}
    return {"count": len(models), "models": sorted(set(models))} if models else {}


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines()


def _add(found: Found, name: str, find: Callable[[], Any]) -> None:
    try:
        told = find()
    except Exception:  # noqa: BLE001  # what one source cannot tell must not cost the others, nor the run its start
        return
    if told or told == 0:
        found[name] = told
