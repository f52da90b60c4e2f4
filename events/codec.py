"""Events to bytes and back: the one codec for the wire, the archive and the state's history.

On the wire an event is a msgpack map (by field name), its headers carry kind, schema version and, where signed,
signatures with their key ids over the exact bytes of the body (`signing`). In the archive and on screens it is JSON in
which non-finite numbers are the strings "NaN", "Infinity" and "-Infinity"; both read back to the same event. Whatever
bytes arrive, `decode` answers with an event or with `Malformed`, and never raises.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pydantic import ValidationError

from .envelope import Event
from .topics import MAX_RECORD_BYTES
from .union import EVENT, KINDS, AnyEvent

KIND_HEADER = "ph-kind"
SCHEMA_HEADER = "ph-schema"
SIGNATURE_HEADER = "ph-signature"
KEY_ID_HEADER = "ph-key-id"
"""Stands before the signature that this key made; a record may carry several such pairs."""
PREVIOUS_HEADER = "ph-previous"
"""Of a decision: the link to the one before it of the same run (`signing.link_of`)."""

Headers = list[tuple[str, bytes]]
Upcast = Callable[[dict[str, Any]], dict[str, Any]]
Upcasts = Mapping[tuple[str, int], Upcast]
"""By (kind, version): turns the fields of that version into those of the next."""

UPCASTS: Upcasts = {
    # The next schema only added fields that may be absent.
    ("advice_given", 1): dict,
    ("advice_requested", 1): dict,
    ("checkpoint_restored", 1): dict,
    ("checkpoint_saved", 1): dict,
    ("data_profiled", 1): dict,
    ("incident_resolved", 1): dict,
    ("intervention_issued", 1): dict,
    ("intervention_proposed", 1): dict,
    ("operator_command", 1): dict,
    ("operator_command", 2): dict,
    ("resources_sampled", 1): dict,
    ("run_assessed", 1): dict,
    ("run_started", 1): dict,
    ("run_started", 2): dict,
    ("telemetry_gap", 1): dict,
}

_STUMBLES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a body of another shape than expected may raise, upcasts included."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict).decode


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event as it travels: the body, and the headers that say how to read it."""

    body: bytes
    headers: Headers = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes that are not an event of ours. `reason` is one CamelCase word, `detail` what a person reads."""

    reason: str
    detail: str
    body: bytes
    kind: str = ""


def encode(event: AnyEvent) -> Encoded:
    """The event's wire form, unsigned."""
    headers = [(KIND_HEADER, event.kind.encode()), (SCHEMA_HEADER, b"%d" % event.schema_version)]
    return Encoded(_encode(event.model_dump()), headers)


def encode_fields(model: type[Event], fields: Mapping[str, Any]) -> Encoded:
    """What `encode(model(**fields))` would give, for whoever knows that `fields` are all there, valid and of the very
    types of the model: nothing is asked. That saves a rank most of what telemetry costs it.
    """
    kind: str = model.model_fields["kind"].default
    headers = [(KIND_HEADER, kind.encode()), (SCHEMA_HEADER, b"%d" % model.schema_version)]
    named = {**fields, "kind": kind}
    return Encoded(_encode({name: named[name] for name in model.model_fields}), headers)


def decode(
    headers: Iterable[tuple[str, bytes | None]], body: bytes | None, upcasts: Upcasts = UPCASTS
) -> AnyEvent | Malformed:
    """The event of a record, or why it is none."""
    if body is None or len(body) > MAX_RECORD_BYTES:
        return Malformed("NoBody" if body is None else "TooLarge", f"{len(body or b'')} bytes", body or b"")
    named = {name: value for name, value in headers if value is not None}
    try:
        kind = named[KIND_HEADER].decode()
        version = int(named[SCHEMA_HEADER])
    except KeyError as missing:
        return Malformed("NotOurs", f"no header {missing}", body)
    except ValueError as error:
        return Malformed("BadHeader", str(error), body)
    model = KINDS.get(kind)
    if model is None:
        return Malformed("UnknownKind", f"kind {kind[:80]!r} is not known here; a newer writer?", body, kind[:80])
    if version > model.schema_version:
        return Malformed(
            "NewerSchema",
            f"{kind} has schema {version}, this reader knows up to {model.schema_version}: upgrade the reader",
            body,
            kind,
        )
    return _decode_body(model, kind, version, body, upcasts)


def _decode_body(model: type[Event], kind: str, version: int, body: bytes, upcasts: Upcasts) -> AnyEvent | Malformed:
    try:
        fields = _decode(body)
        for old in range(version, model.schema_version):
            fields = upcasts[kind, old](fields)
        if fields.get("kind") != kind:
            return Malformed("BadHeader", f"the header says {kind}, the body {fields.get('kind')!r}"[:300], body, kind)
        return model.model_validate(fields)  # type: ignore[return-value]  # KINDS holds exactly the leaves of AnyEvent
    except ValidationError as error:
        return Malformed("Invalid", first_fault(error), body, kind)
    except (msgspec.DecodeError, *_STUMBLES) as error:
        return Malformed("Undecodable", f"{type(error).__name__}: {error}"[:300], body, kind)


def first_fault(error: ValidationError) -> str:
    """Which field is wrong and how, on one line; pydantic's own text takes four a fault."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "body"
    return f"{place}: {first['msg']} ({error.error_count()} faults)"[:300]


def to_json(event: AnyEvent) -> str:
    """One line of JSON; non-finite numbers as strings."""
    return event.model_dump_json()


def from_json(text: str | bytes) -> AnyEvent:
    """The event of `to_json`.

    Raises:
        pydantic.ValidationError: the text is not an event.
    """
    return EVENT.validate_json(text)
