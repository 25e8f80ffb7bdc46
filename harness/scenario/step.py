"""What a step is: one keyword of a scenario with its fields, what it does, and how it is judged.

A step is one file in `harness/steps`; importing it registers it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainValidator

from harness.judgement import Judgement, StepEvidence
from harness.machine.spec import MachineKind
from harness.scenario.edit import Edit
from harness.scenario.registry import Registry
from harness.scenario.section import Section, complaint
from harness.scenario.target import Target
from harness.source.nodes import NodePath


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that a step mentions.

    `kinds` are what it may be the name of (`device`, `buffer`, `domain`, `canary`), `where` leads from the step to the
    field, `defines` is whether the step brings it into being, `once` whether a second definition of it is a mistake.
    """

    kinds: tuple[str, ...]
    name: str
    where: NodePath
    defines: bool = False
    once: bool = False

    @classmethod
    def use(cls, kinds: str | tuple[str, ...], name: str, *where: str | int) -> Reference:
        """`name` must exist by now, as one of `kinds`."""
        return cls((kinds,) if isinstance(kinds, str) else kinds, name, where)

    @classmethod
    def define(cls, kind: str, name: str, *where: str | int, once: bool = False) -> Reference:
        """`name` exists from here on; defining it again is allowed unless `once`."""
        return cls((kind,), name, where, defines=True, once=once)


@dataclass(frozen=True, slots=True)
class IssuedDma:
    """A DMA that a step issues: whose, how many bytes, where to, and the keys that say so."""

    device: str
    length: int
    length_key: str
    place: Target
    place_key: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """A range of I/O virtual addresses that a step maps into the domain of a device, for `r`, `w` or `rw`."""

    device: str
    buffer: str
    iova: int
    size: int
    access: str = "rw"


@dataclass(frozen=True, slots=True)
class Reserved:
    """A range of the guest's memory that a step takes for itself; the device is given the same addresses for it."""

    address: int
    size: int
    key: str


STEPS: Registry[Step] = Registry("step")

#: Keys that may stand beside the keyword of a step.
SIBLINGS = ("expect", "note")


class Step(Section):
    """One step of a scenario; subclasses name their keyword: `class Dma(Step, keyword="dma")`.

    A subclass defines a field of the keyword's name, may define `expect`, and says what it does and how it is judged.
    """

    keyword: ClassVar[str]

    #: The kind of machine it runs on.
    machine_kind: ClassVar[MachineKind] = "linux"

    note: str | None = Field(default=None, description="A remark for the reader; it is shown in the report.")

    def __init_subclass__(cls, *, keyword: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.keyword = keyword

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.keyword not in cls.known_keys():
            raise TypeError(f"step '{cls.keyword}' in {cls.__module__} has no field '{cls.keyword}'")
        STEPS.add(cls.keyword, cls)

    @abstractmethod
    def run(self, session: Any) -> None:
        """Do it, in the session of a machine of `machine_kind`: a `Session` with Linux, a `BareSession` without.

        Raises HarnessError if it could not be done, which says nothing about the system under test.
        """

    @abstractmethod
    def summary(self) -> str:
        """Say in a line what is done, for tables and reports."""

    def judge(self, evidence: StepEvidence) -> Judgement | None:  # noqa: ARG002  # what a preparing step leaves out
        """Tell from the evidence alone whether what was expected came true; pure.

        None for a step that only prepares: what it could not do ended the run, and what it did is for others to prove.
        """
        return None

    def edits(self) -> Iterable[tuple[NodePath, Edit]]:
        """Give the edits it makes to the unit's tables, with the way to each from the step."""
        return ()

    def needs_engine(self) -> Iterable[tuple[str, str, NodePath]]:
        """Give the devices that it makes act on a bare machine, what they do, and the way to each from the step."""
        return ()

    @property
    def bare_length(self) -> int | None:
        """Bytes of each DMA that it makes a device of a bare machine issue; None where there is none."""
        return None

    @property
    def breaks_tables(self) -> bool:
        """Whether it breaks the unit's tables, unless that is what a counter-proof leaves out (`unbroken`)."""
        return False

    @property
    def forges_interrupts(self) -> bool:
        """Whether it sends an interrupt that only the remapping of interrupts keeps from its target."""
        return False

    @property
    def acts_from_outside(self) -> bool:
        """Whether it changes the guest's memory or registers from outside, so that the guest needs its own copy."""
        return self.breaks_tables

    @property
    def ends_machine(self) -> bool:
        """Whether QEMU may end in it, so that nothing can follow; its end is then what the step is judged by."""
        return False

    @property
    def reboots(self) -> bool:
        """Whether the guest boots anew in it: devices are assigned to nobody then, and buffers and mappings gone."""
        return False

    @property
    def may_be_silent(self) -> bool:
        """Whether a refusal without a report (FPD) may be what it expects; otherwise nothing is known after one."""
        return self.machine_kind == "bare"

    @property
    def floods_log(self) -> bool:
        """Whether it provokes more faults than the guest's kernel logs."""
        return False

    def dmas(self) -> Iterable[IssuedDma]:
        """Give the DMAs it issues."""
        return ()

    def buffers(self) -> Iterable[tuple[str, int]]:
        """Give the buffers and canaries it makes, with their sizes in bytes."""
        return ()

    def assignments(self) -> Sequence[tuple[str, str | None]]:
        """Give the devices it puts into a domain, with its name, or takes out of theirs (None)."""
        return ()

    def mappings(self) -> Sequence[Mapped]:
        """Give the ranges it maps."""
        return ()

    def walked(self) -> Sequence[tuple[str, int]]:
        """Give the I/O virtual addresses whose way through the tables it goes, each with the key that says so."""
        return ()

    def reserved(self) -> Sequence[Reserved]:
        """Give the ranges of guest memory at fixed addresses that the guest's kernel must leave alone for it."""
        return ()

    def unmappings(self) -> Sequence[tuple[str, str]]:
        """Give the devices whose domains lose a buffer, with its name."""
        return ()

    @property
    def is_control(self) -> bool:
        """Whether it issues a DMA that must land."""
        return False

    def needs_assigned(self) -> Iterable[str]:
        """Give the devices that must be in a domain for it."""
        return ()

    def starts_guests(self) -> Sequence[str]:
        """Give the nested guests that run from here on."""
        return ()

    def stops_guests(self) -> Sequence[str]:
        """Give the nested guests that do not run any more."""
        return ()

    def needs_guests(self) -> Sequence[str]:
        """Give the nested guests that must run for it."""
        return ()

    def handovers(self) -> Sequence[tuple[str, str]]:
        """Give the devices that nested guests are handed, each with its guest."""
        return ()

    def needs_handed(self) -> Sequence[tuple[str, str]]:
        """Give the devices that nested guests must have for it, each with its guest."""
        return ()

    def needs_nics(self) -> Sequence[tuple[str, str]]:
        """Give the NICs that nested guests must have for it, handed or given, each with its guest."""
        return ()

    def needs_models(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        """Give the devices that only some models can be for it, each with those."""
        return ()

    def exposes(self) -> Iterable[str]:
        """Give the devices whose real MSI-X tables lie open to the nested guests that are handed them by it."""
        return ()

    def needs_exposed(self) -> Iterable[str]:
        """Give the devices whose real MSI-X tables must lie open to their nested guests for it."""
        return ()

    def needs_kernel_args(self) -> Iterable[tuple[str, str]]:
        """Give the arguments that kernels of nested guests must have for it, each after its guest."""
        return ()

    def needs_kernel_driver(self) -> Iterable[str]:
        """Give the devices that must be NICs under their kernel driver for it."""
        return ()

    def needs_functions(self) -> Iterable[str]:
        """Give the devices that must have virtual functions for it."""
        return ()

    def needs_one_nic(self) -> Sequence[str]:
        """Give the devices that must be different virtual functions of one NIC for it."""
        return ()

    def needs_unplugged(self) -> Iterable[str]:
        """Give the devices that must not be there from the start for it."""
        return ()

    @property
    def states_something(self) -> bool:
        """Whether this step is judged, so that a scenario which holds it can prove something."""
        return type(self).judge is not Step.judge

    def references(self) -> Iterable[Reference]:
        """The names this step mentions, in the order it needs them."""
        return ()

    @property
    def expects_block(self) -> bool:
        """Whether a DMA of this step must be blocked, so that it must land once protection is taken away."""
        return False


def _dispatch(value: Any) -> Step:
    """The step that the one keyword of a mapping names."""
    if isinstance(value, Step):
        return value
    if not isinstance(value, dict):
        raise complaint(
            "a step is a mapping with one keyword; found {written}", value=value, word=str(value), choices=STEPS,
            plural="steps",
        )  # fmt: skip
    keywords = [key for key in value if key in STEPS]
    if len(keywords) > 1:
        raise complaint(
            f"'{keywords[1]}' makes a second step of '{keywords[0]}'", at=(keywords[1],), on_key=True,
            suggestion="begin it with '- '",
        )  # fmt: skip
    if keywords:
        return STEPS[keywords[0]].model_validate(value)
    for key in value:
        if key not in SIBLINGS:
            raise complaint(
                f"'{key}' is not a step", at=(key,), on_key=True, word=str(key), choices=STEPS, plural="steps"
            )
    raise complaint("this step has no keyword", on_key=True, choices=STEPS, plural="steps")


#: A step of whatever keyword; the field type of `steps`.
AnyStep = Annotated[Step, PlainValidator(_dispatch)]
