"""What a device under test is to a scenario: a model with its options, and a place on the bus.

A device model is one file in `harness/devices`; importing it registers it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator

from harness.scenario.registry import Registry
from harness.scenario.section import Section, complaint

if TYPE_CHECKING:
    from harness.session import Engine

DEVICES: Registry[Device] = Registry("device model")

#: What a device can be told to do on a bare machine.
BareAccess = Literal["read", "write", "interrupt"]

#: Where a device can sit. Each has a root port of its own, or all share one pcie-pci-bridge and its requester ID.
Behind = Literal["root-port", "bridge"]


class Device(Section):
    """One device of a scenario; subclasses name their model, `class Edu(Device, model="edu")`, and add its options."""

    #: The word a scenario calls the model by.
    model_word: ClassVar[str]

    #: The driver of the guest's kernel that drives it, None where there is none.
    kernel_driver: ClassVar[str | None] = None
    #: Whether it is a NIC with a wire to the host.
    wired: ClassVar[bool] = False
    #: The shortest single DMA it can be made to issue, in bytes.
    min_dma: ClassVar[int] = 16
    #: The longest single DMA it can be made to issue, in bytes; 0 where it is no rogue.
    max_dma: ClassVar[int] = 0
    #: What it can be made to do on a machine without a guest; `interrupt` is a request of its own.
    bare: ClassVar[frozenset[BareAccess]] = frozenset()
    #: The model that it is a virtual function of, None for a device of its own.
    physical_model: ClassVar[str | None] = None
    #: The longest single DMA it can be made to issue there, in bytes; `max_dma` if it is None.
    bare_max_dma: ClassVar[int | None] = None
    #: Whether it fetches what to do, and not only what to move, from memory: its tables must be whole for that.
    queued: ClassVar[bool] = False
    #: Whether it is there on machines without a guest only.
    bare_only: ClassVar[bool] = False
    #: Whether it is a NIC of the lab host that the machine runs on.
    from_host: ClassVar[bool] = False

    model: str = Field(description="What the device is.")
    behind: Behind = Field(
        default="root-port",
        description="A PCIe root port of its own, or the PCIe-to-PCI bridge that all such devices share.",
    )
    plugged: bool = Field(
        default=True, description="Whether it is there when the steps begin; otherwise a step plugs it in."
    )

    def __init_subclass__(cls, *, model: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.model_word = model

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        DEVICES.add(cls.model_word, cls)

    @abstractmethod
    def qdev(self) -> dict[str, object]:
        """Give the properties that QEMU's `device_add` needs, `driver` among them, without `id` and `bus`."""

    @property
    def driven_as(self) -> str:
        """The model that the guest agent drives it as."""
        return self.model_word

    @property
    def physical(self) -> str | None:
        """The name of the device that it is a virtual function of, None for one of its own."""
        return None

    @property
    def engine(self) -> Engine | None:
        """What makes it issue a chosen DMA, None for a device that cannot be told to."""
        return None


def _dispatch(value: Any) -> Device:
    """The device that the `model` of a mapping names."""
    if isinstance(value, Device):
        return value
    if not isinstance(value, dict):
        raise complaint(
            "a device is a mapping with a 'model'; found {written}", value=value, suggestion="write {model: ...}"
        )
    if "model" not in value:
        raise complaint("a device needs 'model'", on_key=True, choices=DEVICES, plural="models")
    model = value["model"]
    if model not in DEVICES:
        raise complaint(
            "{written} is not a device model",
            value=model,
            at=("model",),
            word=str(model),
            choices=DEVICES,
            plural="models",
        )
    return DEVICES[model].model_validate(value)


#: A device of whatever model; the value type of `devices`.
AnyDevice = Annotated[Device, PlainValidator(_dispatch)]
