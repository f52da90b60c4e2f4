"""What the pages show can be typed, saved and asked: commands that are there, Python that compiles and names what is
there, policies that pass their own tests, YAML and JSON that can be read.

Run besides: the tutorial (`tests/acceptance/test_tutorial.py`), docs/import.md (`test_import_page`), every question of
the archive (`tests/integration/test_sql_people_use.py`), the scripts of docs/howto (`test_howto_scripts`, in
`make chaos`).
"""

import ast
import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import pilothouse
from pilothouse.cli.main import UsageError, commands
from pilothouse.events.union import KINDS
from pilothouse.governance.condition_words import CONDITIONS, PHASES, REASONS
from pilothouse.governance.policy import SHIPPED, load_policy, shipped_policy_text
from pilothouse.stream_processors.trial import run_trials
from pilothouse.tests.pages import PAGES, ROOT, Block, blocks, command_lines, spans

ALL = [block for page in PAGES for block in blocks(page)]
SPANS = [block for page in PAGES for block in spans(page)]
TYPED = [block for block in ALL if block.language in ("sh", "", "indented")]
PYTHON = [block for block in ALL if block.language == "python"]
DATA = [block for block in ALL if block.language in ("yaml", "json")]
LANGUAGES = {"sh", "python", "yaml", "json", "sql", "text", "indented", ""}
ROOT_COMMAND: Any = typer.main.get_command(commands)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MARKS = re.compile(r"^(?:\[|\]|…|\.\.\.|\||\|\|)+$")
"""Of a usage line: what is no word to be typed."""


def by_name(block: Block) -> str:
    return block.name


# ---------------------------------------------------------------------------------------------------------- commands


def plain(word: str) -> str:
    """A word of a usage line as it might be typed: `[RUN…]` is RUN, `FILE|FOLDER` is FILE."""
    return word.strip("[]").rstrip("….").split("|")[0]


def as_typed(words: list[str]) -> list[str]:
    """A usage line as it might be typed; dots behind an option are its value."""
    typed: list[str] = []
    for word in words:
        if not MARKS.match(word):
            typed.append(plain(word))
        elif "…" in word and typed and typed[-1].startswith("--"):
            typed.append("X")
    return typed


def refused(words: list[str]) -> str:
    """What the command line says against it; nothing where it takes it."""
    command = ROOT_COMMAND
    path = "pilothouse"
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-") or not re.match(r"^[a-z]", words[0]):
            return ""  # `pilothouse --help`, or the group itself
        path, name, words = f"{path} {words[0]}", words[0].split("|")[0], words[1:]
        if name not in command.commands:
            return f"there is no {path}"
        command = command.commands[name]
    if path == "pilothouse run" and "--" in words:
        words = words[: words.index("--") + 2]
    if path == "pilothouse demo":
        return ""  # its options are its own
    context = command.make_context(path, [], resilient_parsing=True)  # nothing is asked of it yet
    context.resilient_parsing = False
    try:
        command.make_parser(context).parse_args(as_typed(words))
    except Exception as error:
        if not isinstance(error, UsageError):
            raise
        said: Any = error
        return f"{path}: {said.format_message()}"
    return ""


def faults(block: Block) -> list[str]:
    found = []
    for program, *words in command_lines(block):
        if program == "make":
            found += [f"there is no `make {words[0]}`"] if words and plain(words[0]) not in TARGETS else []
        elif said := refused(words):
            found.append(said)
    return found


@pytest.mark.parametrize("block", [block for block in TYPED if any(command_lines(block))], ids=by_name)
def test_every_command_that_a_page_shows_is_one_that_is_there_with_options_that_it_takes(block: Block) -> None:
    assert faults(block) == []


def test_so_is_every_command_in_the_prose() -> None:
    assert len(SPANS) > 100
    abridged = re.compile(r"…|\.\.\.")  # of `pilothouse topics …` the beginning is checked
    said = {block.name: [each for each in faults(block) if not abridged.search(block.text)] for block in SPANS}
    assert {name: each for name, each in said.items() if each} == {}


def test_a_command_that_is_not_there_or_an_option_that_it_does_not_take_is_found() -> None:
    def said(line: str) -> list[str]:
        return faults(Block("page", 1, "sh", "", line + "\n"))

    assert said("pilothouse fly RUN") == ["there is no pilothouse fly"]
    assert said("A=b pilothouse show RUN --loud | jq .")[0].startswith("pilothouse show: No such option")
    assert said("make coffee") == ["there is no `make coffee`"]
    assert said("cd x && pilothouse show RUN [--json]") == []
    assert said("pilothouse policy check FILE|FOLDER|NAME ...") == []


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {block.name: block.language for block in ALL if block.language not in LANGUAGES} == {}


# ------------------------------------------------------------------------------------------------------------ Python

OURS: dict[str, Callable[[], object]] = {
    "pilothouse": lambda: pilothouse,
    "run": lambda: pilothouse.Run,
    "pilot": lambda: pilothouse.Pilot,
    "checkpoints": lambda: pilothouse.Checkpoints,
}
"""What a name of a page stands for."""


def named(node: ast.expr) -> object:
    """What an expression of a page names, where it is ours; None where it is not."""
    match node:
        case ast.Name(id=name) if name in OURS:
            return OURS[name]()
        case ast.Attribute(value=value, attr=attribute) if (owner := named(value)) is not None:
            if owner is pilothouse and attribute not in pilothouse.__all__:
                return importlib.import_module(f"pilothouse.{attribute}")
            return getattr(owner, attribute) if hasattr(owner, attribute) else of_an_instance(owner, attribute)
        case _:
            return None


def of_an_instance(owner: object, attribute: str) -> object:
    """What only an instance has (`run.identity`) must at least be spoken of in its class; of it nothing is known."""
    assert inspect.isclass(owner), (owner, attribute)
    assert f"self.{attribute}" in inspect.getsource(owner), f"{owner.__name__} has no {attribute}"
    return None


def check(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("pilothouse"):
                home = importlib.import_module(module)
                for each in names:
                    if not hasattr(home, each.name):
                        importlib.import_module(f"{module}.{each.name}")
            case ast.Call(func=func, keywords=keywords) if (known := named(func)) is not None and callable(known):
                takes = inspect.signature(known).parameters
                any_name = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values())
                wrong = {each.arg for each in keywords if each.arg} - set(takes)
                assert any_name or not wrong, f"{ast.unparse(func)} takes no {wrong}"
            case ast.Attribute():
                named(node)
            case _:
                pass


@pytest.mark.parametrize("block", PYTHON, ids=by_name)
def test_python_of_a_page_compiles_and_names_what_is_there(block: Block) -> None:
    check(ast.parse(textwrap.dedent(block.text)))


def test_python_that_names_what_is_not_there_is_found() -> None:
    for wrong in (
        "pilothouse.fly()",
        "from pilothouse.events import nothing",
        "pilothouse.Checkpoints('x', evry=3)",
        "run.lgo(1)",
    ):
        with pytest.raises((AssertionError, ModuleNotFoundError)):
            check(ast.parse(wrong))


# -------------------------------------------------------------------------------------------------------------- data


def as_policy(told: Any) -> str | None:
    """The text of a block that is a policy, or a part of one made whole."""
    match told:
        case {"rules": _}:
            return yaml.safe_dump({"name": "page"} | told, sort_keys=False)
        case {"verify": _}:
            rule = {
                "name": "r",
                "when": "conditions.Stable == 'False'",
                "actions": [{"action": "scale_lr", "factor": 0.5}],
            }
            return yaml.safe_dump({"name": "page", "rules": [rule | told]}, sort_keys=False)
        case _:
            return None


@pytest.mark.parametrize("block", DATA, ids=by_name)
def test_data_of_a_page_can_be_read_and_a_policy_is_right_and_passes_its_own_tests(block: Block) -> None:
    if block.language == "json":
        told = json.loads(block.text)
    else:
        told = yaml.safe_load(block.text)
    for server in told.get("mcpServers", {}).values() if isinstance(told, dict) else ():
        assert refused(server["args"]) == ""
    text = as_policy(told)
    if text is not None:
        whole = block.text if "name" in told else text
        policy = load_policy(whole)
        assert [outcome.mismatches for outcome in run_trials(policy, whole)] == [[] for _ in policy.tests]


# ---------------------------------------------------------------------------------------------------------- runbooks

RUNBOOKS = [page for page in sorted((ROOT / "docs" / "runbooks").glob("*.md")) if page.name != "index.md"]
RULES_OF = {name: {rule.name for rule in load_policy(shipped_policy_text(name)).rules} for name in SHIPPED}
RULE = re.compile(rf"`({'|'.join(sorted(set().union(*RULES_OF.values())))})`")
ERRORS = {"RestartRequired", "KeyError", "ValueError"}
PARTS = ["How it looks", "First five minutes", "What the governor does by itself", "When to escalate"]


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_every_runbook_answers_the_same_questions_and_is_found_from_the_first_page(page: Path) -> None:
    assert re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) == PARTS
    assert f"]({page.name})" in (page.parent / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_rules_kinds_alerts_and_reasons_of_a_runbook_are_those_that_there_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    alerts = (ROOT / "compose" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    assert [name for name in re.findall(r"\bPilothouse[A-Z]\w+", text) if f"alert: {name}" not in alerts] == []
    assert [kind for kind in re.findall(r"--kind (\w+)", text) if kind not in KINDS] == []
    said = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`", text))
    assert said - {*REASONS, *CONDITIONS, *PHASES, *ERRORS} == set()
    for policies, words in re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \| (.+) \|$", text, re.MULTILINE):
        for name in re.findall(r"`([a-z-]+)`", policies):
            assert RULE.findall(words) == [rule for rule in RULE.findall(words) if rule in RULES_OF[name]], (
                name,
                words,
            )
