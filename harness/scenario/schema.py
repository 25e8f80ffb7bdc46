"""The JSON schema of scenario files, for editors: composed from the model, the registered steps and the devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from harness.scenario.device import DEVICES
from harness.scenario.model import Scenario
from harness.scenario.step import STEPS

_MATRIX: dict[str, Any] = {
    "description": "Variants: lists of values by dotted path (every combination), or a list of rows of values by path.",
    "anyOf": [
        {"type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1}},
        {"type": "array", "minItems": 1, "items": {"type": "object", "minProperties": 1}},
    ],
}


class _Untitled(GenerateJsonSchema):
    """Without the titles that pydantic makes up from field names: an editor shows the description beside the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


def json_schema() -> dict[str, Any]:
    """The schema of a scenario file, a JSON Schema of draft 2020-12; the same registrations give the same schema."""
    steps: Mapping[str, type[BaseModel]] = {f"step {word}": STEPS[word] for word in STEPS}
    devices: Mapping[str, type[BaseModel]] = {word: DEVICES[word] for word in DEVICES}
    models: list[type[BaseModel]] = [Scenario, *steps.values(), *devices.values()]
    refs, shared = models_json_schema(
        [(model, "validation") for model in models], schema_generator=_Untitled, ref_template="#/$defs/{model}"
    )
    definitions: dict[str, Any] = shared["$defs"]
    root = definitions.pop(refs[Scenario, "validation"]["$ref"].rsplit("/", 1)[1])
    for word, model in devices.items():
        section = definitions[refs[model, "validation"]["$ref"].rsplit("/", 1)[1]]
        section["properties"]["model"] = {"const": word, "description": "What the device is."}
    root["properties"]["steps"]["items"] = {"anyOf": [refs[model, "validation"] for model in steps.values()]}
    root["properties"]["devices"]["additionalProperties"] = {
        "anyOf": [refs[model, "validation"] for model in devices.values()]
    }
    root["properties"]["matrix"] = _MATRIX
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": "Scenario",
        "$defs": dict(sorted(definitions.items())),
    }
