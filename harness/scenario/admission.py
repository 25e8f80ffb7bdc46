"""What a scenario expects of an assignment: that VFIO admits the device's group into a domain, or refuses it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from harness.scenario.section import Section, complaint
from harness.scenario.values import Name

#: What may stand beside `assign`, for its field's description.
ADMISSION = (
    "`accepted`; `{refused: {because_of: NAMES}}`: the devices of its group that their kernel drivers hold; or "
    "`{refused: {words: TEXT}}`: what the kernel's log says where interrupts are not remapped (EPERM)."
)


class RefusedBody(Section):
    """Who stands in the way, or what the kernel says of interrupts that are not remapped."""

    because_of: Annotated[
        tuple[Name, ...],
        BeforeValidator(lambda value: value if isinstance(value, (list, tuple)) else (value,)),
    ] = Field(default=(), description="The devices in the same IOMMU group that kernel drivers hold.")
    words: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Words of the kernel's log where interrupts are not remapped."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if bool(self.because_of) == (self.words is not None):
            raise complaint("a refusal is either 'because_of' devices or explained by 'words'", on_key=True)
        return self


class Refusal(Section):
    """VFIO refuses the device, and why."""

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
    Annotated[Literal["accepted"], Tag("<word>")] | Annotated[Refusal, Tag("<refusal>")],
    Discriminator(_tag),
    BeforeValidator(_check),
]
