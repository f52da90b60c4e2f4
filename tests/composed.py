"""What stands in `compose/`, read as Docker, Kubernetes and our own command line would: for the tests of it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

from pilothouse.cli.main import commands

COMPOSE = Path(__file__).parents[1] / "compose"
MOUNTED = "/run/secrets/"


@dataclass(frozen=True)
class Told:
    """One of our processes: its command and environment, and the secrets that it, or the pod of its own (`inside`), is
    given, by their path there.
    """

    name: str
    inside: str
    command: tuple[str, ...]
    environment: dict[str, str]
    secrets: frozenset[str]


def written() -> dict[str, Any]:
    """`compose.yaml` as it is written, with what may be left out of `.env` filled in."""
    text = (COMPOSE / "compose.yaml").read_text()
    filled: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return filled


def composed() -> Iterator[Told]:
    """Our services of `compose.yaml`."""
    for name, service in written()["services"].items():
        if "build" in service:
            given = {key: "" if value is None else str(value) for key, value in service["environment"].items()}
            yield Told(name, f"service {name}", tuple(service["command"]), given, frozenset(targets(service)))


def targets(service: dict[str, Any]) -> Iterator[str]:
    """Where a service of `compose.yaml` finds its secrets."""
    for secret in service.get("secrets", ()):
        target = secret if isinstance(secret, str) else secret["target"]
        yield target if target.startswith("/") else MOUNTED + target


def manifests() -> list[dict[str, Any]]:
    """The objects of the example for Kubernetes."""
    return list(yaml.safe_load_all((COMPOSE / "kubernetes" / "pilothouse.yaml").read_text()))


def deployed() -> Iterator[Told]:
    """Every container of ours in the example for Kubernetes; its secrets are those that its Secret is made with."""
    known = {one["metadata"]["name"]: one for one in manifests()}
    for one in manifests():
        if one["kind"] not in ("Deployment", "Job"):
            continue
        pod = one["spec"]["template"]["spec"]
        [secret] = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            [settings] = [source["configMapRef"]["name"] for source in container["envFrom"]]
            given = {pair["name"]: str(pair["value"]) for pair in container["env"]}
            [where] = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "secrets"]
            files = frozenset(f"{where}/{key}" for key in keys_of_secrets()[secret])
            environment = known[settings]["data"] | given
            yield Told(container["name"], f"pod {secret}", tuple(container["args"]), environment, files)


def keys_of_secrets() -> dict[str, list[str]]:
    """What `secrets.sh` puts into each Secret."""
    text = (COMPOSE / "kubernetes" / "secrets.sh").read_text().replace("\\\n", " ")
    users = re.search(r"for user in (.*); do", text)
    assert users
    passwords = " ".join(f"clickhouse_{user}_password" for user in users[1].split())
    told = re.findall(r"^secret (\S+) (.*)$", text, flags=re.MULTILINE)
    return {name: [Path(file).name for file in files.replace("$passwords", passwords).split()] for name, files in told}


def make_secrets(folder: Path) -> Path:
    """A copy of `compose/` with its secrets made by its own script; the folder of these."""
    copy = folder / "compose"
    shutil.copytree(COMPOSE, copy, ignore=shutil.ignore_patterns("secrets", ".env"))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environ = {"PATH": path, "HOME": str(folder), "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([str(copy / "make-secrets.sh")], env=environ, check=True, capture_output=True, timeout=300)
    return copy / "secrets"


def parse(command: tuple[str, ...]) -> str:
    """Let the real command line read it, without doing anything; the names of the command.

    Raises:
        click's UsageError: there is no such command or option.
    """
    group: Any = typer.main.get_command(commands)
    context = group.make_context("pilothouse", list(command), resilient_parsing=True)
    rest, names = list(command), []
    while hasattr(group, "resolve_command"):
        name, group, rest = group.resolve_command(context, rest)
        names.append(name)
    group.make_context(name, rest, parent=context)
    return " ".join(names)
