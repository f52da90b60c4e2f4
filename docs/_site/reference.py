"""The reference pages, made from the code whenever the site is built: no copy that could differ from it.

`PAGES` are the pages by their name; `hooks` hands them to MkDocs. What has no words of its own (a setting, a column, an
option) is a cell without text, which `tests/unit/test_reference.py` does not let pass.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, get_args

import typer
from fastapi import FastAPI
from pydantic import BaseModel

import pilothouse
from pilothouse import settings
from pilothouse.cli.main import commands
from pilothouse.control_room import metrics
from pilothouse.control_room.web import acting, exposing, policies, reading, reports, session
from pilothouse.events import envelope, union
from pilothouse.events.actions import ACTIONS
from pilothouse.events.topics import TOPICS, Topic
from pilothouse.governance.condition_words import CONDITIONS, PHASES, REASONS
from pilothouse.governance.expressions import FEATURES, FOR_PEOPLE
from pilothouse.governance.policy_schema import MEANINGS, schema
from pilothouse.storage.migrate import load_migrations
from pilothouse.storage.named import statements

Row = tuple[str, ...]
VIEW = re.compile(r"^CREATE OR REPLACE VIEW (?P<name>\w+)\n\((?P<columns>.*?)\n\)\nAS\b", re.MULTILINE | re.DOTALL)
COLUMN = re.compile(r"^ +(?P<name>\w+) +(?P<type>\S.*?)(?: COMMENT '(?P<words>(?:[^'\\]|\\.|'')*)')?,?$", re.MULTILINE)


def code(text: object) -> str:
    """Inside of a table's cell."""
    escaped = str(text).replace("|", "\\|").replace("\n", " ")
    return f"`{escaped}`" if escaped else ""


def prose(text: str) -> str:
    """A docstring, or a sentence of one, as it may stand in a table or a paragraph."""
    return " ".join(inspect.cleandoc(text).split()).replace("|", "\\|").replace("<", "&lt;")


def table(heads: Row, rows: Iterable[Row]) -> str:
    """Nothing where there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *lines]) + "\n"


def paragraphs(docstring: str | None) -> str:
    """A docstring as Markdown."""
    return re.sub(r"(?<!`)<(?=\w)", "&lt;", inspect.cleandoc(docstring or "")) + "\n"


# ------------------------------------------------------------------------------------------------------------ shapes


def words(shape: Mapping[str, Any]) -> str:
    """A JSON Schema as a person says it."""
    match shape:
        case {"$ref": str(name)}:
            said = name.rpartition("/")[2].strip("_")
        case {"const": value}:
            said = str(value)
        case {"enum": values}:
            said = ", ".join(str(each) for each in values)
        case {"anyOf": parts} | {"oneOf": parts}:
            said = " or ".join(dict.fromkeys(words(each) for each in parts))
        case {"type": "array", "items": dict(items)}:
            said = f"list of {words(items)}"
        case {"type": "object", "additionalProperties": dict(values)}:
            said = f"{words(values)} by name"
        case _:
            kind = str(shape.get("type", "anything"))
            said = {"string": "text", "object": "map", "null": "none", "array": "list"}.get(kind, kind) + bounds(shape)
    return said


def bounds(shape: Mapping[str, Any]) -> str:
    """What a number must be between."""
    least = shape.get("minimum", shape.get("exclusiveMinimum"))
    most = shape.get("maximum", shape.get("exclusiveMaximum"))
    above = "above " if "exclusiveMinimum" in shape else "from "
    least_words = "" if least is None else f" {above}{least}"
    return least_words + ("" if most is None or most >= 2**31 - 1 else f" to {most}")


def fields(model: type[BaseModel], without: frozenset[str] = frozenset()) -> str:
    """What a model consists of."""
    made = model.model_json_schema(mode="validation", by_alias=True)
    needed = made.get("required", [])
    shapes: dict[str, Any] = made.get("properties", {})
    return table(
        ("field", "what", "without it"),
        (
            (code(name), code(words(shape)), "" if name in needed else default(shape))
            for name, shape in shapes.items()
            if name not in without
        ),
    )


def default(shape: Mapping[str, Any]) -> str:
    value = shape.get("default")
    return "nothing" if value in (None, "", []) or isinstance(value, dict) else code(value)


# ------------------------------------------------------------------------------------------------------------- pages


def events() -> str:
    """Topics, the envelope, and each event of the union."""
    common = frozenset(envelope.TrainerFact.model_fields) | frozenset(envelope.Decision.model_fields)
    groups = {
        "What trainers tell": union.AnyTelemetry,
        "What people, advisors and the clock tell": union.AnyCommand,
        "What governance decides": union.AnyDecision,
    }
    parts = [topics(TOPICS), "## What every event has\n"]
    for model in (envelope.Event, envelope.Fact, envelope.TrainerFact, envelope.Decision):
        own = frozenset(name for each in model.__mro__[1:] for name in getattr(each, "model_fields", ()))
        parts += [f"### {model.__name__}\n", paragraphs(model.__doc__), fields(model, own)]
    for title, members in groups.items():
        parts.append(f"## {title}\n")
        for leaf in get_args(members):
            kind = leaf.model_fields["kind"].default
            parts += [
                f"### {leaf.__name__}\n",
                f"Kind `{kind}`, schema version {leaf.schema_version}, a {leaf.__mro__[1].__name__}.\n",
                paragraphs(leaf.__doc__),
                fields(leaf, common),
            ]
    return page("Events", union.__doc__, parts)


def topics(known: Iterable[Topic]) -> str:
    rows = (
        (
            code(topic.name), topic.partition_by, ", ".join(topic.written_by), ", ".join(topic.read_by),
            f"{topic.retention_ms // 86_400_000} days", f"{topic.max_record_bytes:,} bytes",
        )
        for topic in known
    )  # fmt: skip
    return "## Topics\n\n" + table(("topic", "partition by", "written by", "read by", "kept", "largest record"), rows)


def said_of_settings() -> dict[str, str]:
    """What stands below each setting in the class."""
    tree = ast.parse(Path(settings.__file__).read_text(encoding="utf-8"))
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    said = {}
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                said[name] = text
            case _:
                pass
    return said


IN_A_FILE = """\
In the file that `PILOTHOUSE_CONFIG` names (TOML) a setting is called as here, in small letters and without the prefix.
Wrong and unknown ones are said, all at once; a training goes on with its default.
"""


def settings_page() -> str:
    """Every variable, from the one model of settings."""
    said = said_of_settings()
    shapes = settings.Settings.model_json_schema()["properties"]
    rows = (
        (code(f"{settings.PREFIX}{name.upper()}"), prose(said.get(name, "")), words(shape), default(shape))
        for name, shape in shapes.items()
    )
    return page(
        "Settings",
        settings.__doc__,
        [
            paragraphs(settings.Settings.__doc__),
            IN_A_FILE,
            table(("variable", "what", "type", "default"), rows),
        ],
    )


class Spoken(NamedTuple):
    """A command of the command line, with the words by which it is called."""

    path: str
    command: Any


def spoken(command: Any = None, path: str = "pilothouse") -> Iterator[Spoken]:
    """Every command that does something, groups left out."""
    command = typer.main.get_command(commands) if command is None else command
    if not hasattr(command, "commands"):
        yield Spoken(path, command)
        return
    for name, inner in command.commands.items():
        yield from spoken(inner, f"{path} {name}")


def parameters(command: Any) -> Iterator[Row]:
    """Name, meaning and default of each argument and option that is shown."""
    for each in command.params:
        if getattr(each, "hidden", False):
            continue
        is_option = str(each.opts[0]).startswith("-")
        name = ", ".join((*each.opts, *each.secondary_opts)) if is_option else (each.metavar or each.name.upper())
        value = each.default
        shown = "" if callable(value) or value in (None, False, "", (), []) else code(value)
        yield code(name), prose(each.help or ""), "needed" if each.required else shown


def command_line() -> str:
    """Every command, as `--help` tells it."""
    parts = []
    for path, command in spoken():
        parts += [f"## {path}\n", paragraphs(command.help), table(("", "what", "default"), parameters(command))]
    return page("Command line", typer.main.get_command(commands).help, parts)


def views() -> dict[str, list[Row]]:
    """Each view's columns (name, type, words), as the last statement that makes it has them."""
    found: dict[str, list[Row]] = {}
    for text in (*(migration.text for migration in load_migrations()), *statements().values()):
        for view in VIEW.finditer(text):
            columns = COLUMN.finditer(view["columns"])
            found[view["name"]] = [(each["name"], each["type"], each["words"] or "") for each in columns]
    return found


def views_page() -> str:
    """Every view, from the migrations that make it."""
    parts = []
    for name, columns in sorted(views().items()):
        rows = ((code(column), code(kind), prose(said.replace("''", "'"))) for column, kind, said in columns)
        parts += [f"## {name}\n", table(("column", "type", "what"), rows)]
    intro = (
        "What `pilothouse sql` asks. Which view is for what, and thirty questions with their answers: [SQL](../sql.md)."
    )
    return page("Views of the archive", intro, parts)


def metrics_page() -> str:
    """What `/metrics` tells Prometheus."""
    nothing = metrics.Told([], [], [], [], [], [], 0)
    intro = metrics.__doc__ or ""
    rows = (metric(family) for family in metrics.families(nothing))
    return page(
        "Metrics", intro, [table(("metric", "what", "type", "labels"), rows), "Alerts: [alerts](../alerts.md).\n"]
    )


def metric(family: Any) -> Row:
    """A family of prometheus_client, which has no public word for its labels."""
    name = family.name + ("_total" if family.type == "counter" else "")
    return code(name), prose(family.documentation), family.type, ", ".join(map(code, family._labelnames))


def conditions_page() -> str:
    """Phases, conditions and reasons."""
    by_condition = (
        (code(name), said, ", ".join(code(reason) for reason, (of, _) in REASONS.items() if of == name))
        for name, said in CONDITIONS.items()
    )
    reasons = ((code(reason), code(of), said) for reason, (of, said) in REASONS.items())
    return page(
        "Phases, conditions, reasons",
        "How a run is judged: [the state model](../explanation/state.md). Bounds, and how often an alarm is false:"
        " [detection](../detection.md).",
        [
            "## Phases\n", table(("phase", "when"), ((code(phase), said) for phase, said in PHASES.items())),
            "## Conditions\n", table(("condition", "while True", "reasons of False and Unknown"), by_condition),
            "## Reasons\n", table(("reason", "condition", "what it says"), reasons),
        ],
    )  # fmt: skip


def policy_page() -> str:
    """The keys of a policy's file, the actions, and what an expression may name."""
    made = schema()
    shapes = {"Policy": made, **made["$defs"]}
    parts = ["## The file\n"]
    for name, shape in shapes.items():
        if name not in MEANINGS:  # what only the log has
            continue
        rows = (
            (code(key), prose(inner.get("description", "")), code(words(inner)), default(inner))
            for key, inner in shape["properties"].items()
        )
        parts += [f"### {name.strip('_')}\n", table(("key", "what", "type", "default"), rows)]
    parts.append("## Actions\n")
    for action in ACTIONS:
        parts += [f"### {action.model_fields['action'].default}\n", paragraphs(action.__doc__), fields(action)]
        parts += [f"Changes {', '.join(code(each) for each in action.changes)}.\n"] if action.changes else []
    features = ((code(name), prose(said)) for name, said in FEATURES.items())
    parts += ["## Features\n", f"Only rules that do nothing but notify may name {', '.join(map(code, FOR_PEOPLE))}.\n"]
    parts += [table(("feature", "what"), features)]
    return page("Policies", "How a policy is written: [policies](../policies.md).", parts)


def interface() -> dict[str, Any]:
    """The OpenAPI document of the control room."""
    app = FastAPI(title="Pilothouse control room", version="1")
    for module in (session, reading, reports, policies, acting, exposing):
        app.include_router(module.router)
    return app.openapi()


def interface_page() -> str:
    """The control room's API."""
    rows = (
        (code(f"{method.upper()} {path}"), prose(told.get("description", "")), ", ".join(asked(told)))
        for path, methods in interface()["paths"].items()
        for method, told in methods.items()
    )
    intro = "With every shape: `/api/openapi.json`. Tokens and roles: [control room](../control_room.md)."
    return page("The control room's API", intro, [table(("call", "what", "asks for"), rows)])


def asked(told: Mapping[str, Any]) -> Iterator[str]:
    for each in told.get("parameters", []):
        if each["in"] == "header":  # the token, in every call
            continue
        yield code(each["name"] if each.get("required") else f"{each['name']}?")


def sdk_page() -> str:
    """What `import pilothouse` offers."""
    parts = []
    for name in pilothouse.__all__:
        known = getattr(pilothouse, name)
        if not callable(known):
            continue
        parts += [f"## pilothouse.{name}\n", *signed(name, known), paragraphs(known.__doc__)]
        for method, inner in vars(known).items() if inspect.isclass(known) else ():
            if not method.startswith("_") and inspect.isfunction(inner) and inner.__doc__:
                parts += [f"### {name}.{method}\n", *signed(method, inner), paragraphs(inner.__doc__)]
    return page("The SDK", pilothouse.__doc__, parts)


def signed(name: str, known: Callable[..., Any]) -> list[str]:
    return ["```text\n" + f"{name}{inspect.signature(known)}".replace("pilothouse.", "") + "\n```\n"]


def page(title: str, intro: str | None, parts: Iterable[str]) -> str:
    return "\n".join([f"# {title}\n", paragraphs(intro), *parts])


PAGES: Mapping[str, Callable[[], str]] = {
    "reference/sdk.md": sdk_page,
    "reference/cli.md": command_line,
    "reference/settings.md": settings_page,
    "reference/events.md": events,
    "reference/conditions.md": conditions_page,
    "reference/policy.md": policy_page,
    "reference/views.md": views_page,
    "reference/metrics.md": metrics_page,
    "reference/api.md": interface_page,
}
