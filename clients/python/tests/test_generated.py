"""The types that are made from the schemas (scripts/generate.py): that each message has one, with the right fields."""

import json
import sys
import typing
from pathlib import Path

import pytest

from wheelhouse_client.generated import messages, worker

SCHEMAS = Path(__file__).resolve().parents[3] / "schema"


@pytest.mark.parametrize(("name", "module"), [("messages", messages), ("worker", worker)])
def test_each_message_of_a_schema_has_a_type_with_its_fields(name: str, module: object) -> None:
    definitions = json.loads((SCHEMAS / f"{name}.schema.json").read_text())["$defs"]
    found = 0
    for key, definition in definitions.items():
        properties = definition.get("properties", {})
        if "const" not in properties.get("type", {}):
            continue
        made = getattr(module, "".join(part.capitalize() for part in key.split("_")))
        assert set(made.__annotations__) == set(properties), key
        found += 1
        if sys.version_info >= (3, 11):
            hints = typing.get_type_hints(made, include_extras=True)
            optional = {field for field, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired}
            assert optional == set(properties) - set(definition["required"]), key
            assert typing.get_args(hints["type"]) == (properties["type"]["const"],), key
    assert found > 15
