"""What --json prints, held against the schema that ships: stricter than readers may be, no field is undocumented."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

import usernsplan

SCHEMA: dict[str, Any] = json.loads(
    (Path(usernsplan.__file__).parent / "report/output.schema.json").read_text()
)
# By the kind of a document, the name of its definition.
KINDS = {
    kind: name
    for name in (one["$ref"].removeprefix("#/$defs/") for one in SCHEMA["oneOf"])
    for said in [SCHEMA["$defs"][name]["properties"]["kind"]]
    for kind in said.get("enum", [said.get("const")])
}


def document_in(text: str) -> dict[str, Any]:
    """Read a document; it says what its kind promises, and nothing else."""
    document: dict[str, Any] = json.loads(text)
    kind = document["kind"]
    assert kind in KINDS
    errors = [
        f"{error.json_path}: {error.message}"
        for error in _strict(KINDS[kind]).iter_errors(document)
    ]
    assert not errors, errors
    return document


@functools.cache
def _strict(name: str) -> Draft202012Validator:
    definitions = {name: _closed(one) for name, one in SCHEMA["$defs"].items()}
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions})


def _closed(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """The same without room for other fields."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    return {**found, "additionalProperties": False} if "required" in schema else found
