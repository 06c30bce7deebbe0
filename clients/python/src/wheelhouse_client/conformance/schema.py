"""The part of JSON Schema that schema/worker.schema.json uses, so that the checks need no other package."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

Schema = dict[str, Any]

_TYPES: dict[str, Any] = {
    "object": dict,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def load() -> Schema:
    """The schema of all messages."""
    text = resources.files("wheelhouse_client.conformance").joinpath("worker.schema.json").read_text(encoding="utf-8")
    schema: Schema = json.loads(text)
    return schema


def client_fault(schema: Schema, message: Any) -> str | None:
    """What is wrong with a message of a client, or None."""
    if not isinstance(message, dict):
        return "it is not a JSON object"
    kind = message.get("type")
    names = [entry["$ref"].rsplit("/", 1)[1] for entry in schema["$defs"]["client"]["oneOf"]]
    if kind not in names:
        return f"there is no message of type {kind!r} from a client"
    return _fault(schema, schema["$defs"][kind], message, str(kind))


def _fault(root: Schema, schema: Schema, value: Any, where: str) -> str | None:
    if "$ref" in schema:
        return _fault(root, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], value, where)
    if "const" in schema and value != schema["const"]:
        return f"{where} must be {schema['const']!r}, not {value!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {', '.join(schema['enum'])}, not {value!r}"
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_is(value, kind) for kind in kinds):
            return f"{where} must be of type {' or '.join(kinds)}, not {value!r}"
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)) or len(value) < schema.get("minLength", 0):
            return f"{where} has a length that is not allowed"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"{where} is {value!r}, which does not match {schema['pattern']}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            return f"{where} is {value}, out of range"
    if isinstance(value, dict):
        return _object_fault(root, schema, value, where)
    return None


def _object_fault(root: Schema, schema: Schema, value: dict[str, Any], where: str) -> str | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"{where} lacks the field {name}"
    for name, entry in value.items():
        if name in properties:
            fault = _fault(root, properties[name], entry, f"{where}.{name}")
            if fault is not None:
                return fault
        elif schema.get("additionalProperties") is False:
            return f"{where} has the unknown field {name}"
    return None


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, _TYPES[kind])
