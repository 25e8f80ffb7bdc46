from __future__ import annotations

import json

import scenario_words

from harness.scenario.schema import json_schema


def test_the_schema_tells_of_every_step_and_device():
    with scenario_words.defined():
        schema = json_schema()
        assert schema == json_schema()
    definitions = schema["$defs"]
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"scenario", "title"}
    steps = schema["properties"]["steps"]["items"]["anyOf"]
    assert [step["$ref"] for step in steps] == [
        f"#/$defs/{name}" for name in ("Assign", "Dma", "Map", "Plant", "Quiet", "Wait")
    ]
    assert definitions["Dma"]["description"] == "Make a device issue a DMA."
    assert definitions["Dma"]["required"] == ["dma"]
    assert "from" in definitions["DmaBody"]["properties"]
    devices = schema["properties"]["devices"]["additionalProperties"]["anyOf"]
    assert {device["$ref"] for device in devices} == {"#/$defs/E1000e", "#/$defs/Edu"}
    assert definitions["Edu"]["properties"]["model"]["const"] == "edu"
    short, long = definitions["Assign"]["properties"]["assign"]["anyOf"]
    assert (short["type"], long) == ("string", {"$ref": "#/$defs/AssignBody"})
    assert schema["properties"]["refused"]["description"]


def test_every_reference_of_the_schema_leads_somewhere():
    with scenario_words.defined():
        schema = json_schema()
    text = json.dumps(schema)
    for part in text.split('"$ref": "#/$defs/')[1:]:
        assert part.split('"')[0] in schema["$defs"]
