"""What a scenario expects of an assignment: that VFIO admits the device's group into a domain, or refuses it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from harness.scenario.section import Section, complaint
from harness.scenario.values import Name

#: What may stand beside `assign`, for its field's description.
ADMISSION = "`accepted`, or `{refused: {because_of: NAMES}}`: the devices of its group that their kernel drivers hold."


class RefusedBody(Section):
    """Who stands in the way."""

    because_of: Annotated[
        tuple[Name, ...],
        BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else (value,)),
        Field(min_length=1, description="The devices in the same IOMMU group that kernel drivers hold."),
    ]


class RefusedGroup(Section):
    """VFIO refuses the group, and says nothing of why: that is for the members' drivers to tell."""

    refused: RefusedBody


def _check(value: Any) -> Any:
    if value == "accepted" or isinstance(value, dict | Section):
        return value
    raise complaint(
        "{written} is not what can become of an assignment",
        value=value,
        word=str(value),
        choices=("accepted", "refused"),
        plural="one of",
    )


def _tag(value: Any) -> str:
    return "<word>" if isinstance(value, str) else "<refusal>"


Admission = Annotated[
    Annotated[Literal["accepted"], Tag("<word>")] | Annotated[RefusedGroup, Tag("<refusal>")],
    Discriminator(_tag),
    BeforeValidator(_check),
]
