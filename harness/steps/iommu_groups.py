"""iommu_groups: prove which devices share an IOMMU group, and what kind of domain their group has."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from harness.judgement import Judgement, StepEvidence, single
from harness.scenario.section import Section, complaint
from harness.scenario.step import Reference, Step
from harness.scenario.values import Name
from harness.session import Session
from harness.verdict import Finding, Outcome


class GroupsBody(Section):
    """Who stands alone and who stands together."""

    alone: tuple[Name, ...] = Field(default=(), description="Devices whose group holds no other endpoint.")
    together: tuple[tuple[Name, ...], ...] = Field(default=(), description="Sets of devices that share one group.")
    type: Literal["DMA", "DMA-FQ", "identity"] | None = Field(
        default=None, description="The effective domain type of the groups of all devices named, as sysfs tells it."
    )

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if not self.alone and not self.together:
            raise complaint("no device is named, so nothing is stated", on_key=True, suggestion="name some as 'alone'")
        for row, names in enumerate(self.together):
            if len(set(names)) < 2:
                raise complaint("it takes two devices to share a group", at=("together", row))
        return self


class IommuGroups(Step, keyword="iommu_groups"):
    """Read the IOMMU groups from the guest's sysfs and hold them to the topology; the command line is not believed."""

    iommu_groups: GroupsBody

    def summary(self) -> str:
        """Say in a line what is done."""
        parts = [f"'{name}' alone" for name in self.iommu_groups.alone]
        parts += [" and ".join(f"'{name}'" for name in names) + " together" for names in self.iommu_groups.together]
        return "IOMMU groups: " + ", ".join(parts)

    def references(self) -> list[Reference]:
        """Name every device."""
        body = self.iommu_groups
        alone = [Reference.use("device", name, "iommu_groups", "alone", index) for index, name in enumerate(body.alone)]
        return alone + [
            Reference.use("device", name, "iommu_groups", "together", row, column)
            for row, names in enumerate(body.together)
            for column, name in enumerate(names)
        ]

    def run(self, session: Session) -> None:
        """Read group, members and type of every device under test."""
        functions = {
            name: session.call("pci", bdf=device.address) for name, device in session.devices.items() if device.address
        }
        bridges = [
            function["bdf"] for function in session.call("pci_list")["functions"] if function["header_type"] & 0x7F
        ]
        session.record("groups", functions=functions, bridges=bridges)

    def judge(self, evidence: StepEvidence) -> Judgement:
        """Compare the groups with what was stated."""
        seen = evidence.observation("groups")
        if seen is None:
            return single(Outcome.ERROR, "the groups were never read", evidence.index)
        functions: dict[str, dict[str, Any]] = seen.data["functions"]
        problems = [*self._wrong_types(functions), *self._wrong_company(functions, seen.data["bridges"])]
        if problems:
            findings = tuple(
                Finding(outcome=Outcome.FAIL, text=text, step=evidence.index, refs=(seen.ref,)) for text in problems
            )
            return Judgement(findings=findings)
        shown = ", ".join(f"'{name}' in group {facts['iommu_group']}" for name, facts in functions.items())
        return single(Outcome.PASS, f"the groups are as stated: {shown}", evidence.index, seen.ref)

    def _wrong_types(self, functions: dict[str, dict[str, Any]]) -> list[str]:
        wanted = self.iommu_groups.type
        named = {name for names in (self.iommu_groups.alone, *self.iommu_groups.together) for name in names}
        return [
            f"the group of '{name}' is of type {functions[name]['group_type']}, expected {wanted}"
            for name in sorted(named)
            if wanted is not None and functions[name]["group_type"] != wanted
        ]

    def _wrong_company(self, functions: dict[str, dict[str, Any]], bridges: list[str]) -> list[str]:
        """Compare the endpoints of each group; bridges may stand in any, they issue no DMA of their own."""

        def endpoints(name: str) -> set[str]:
            return set(functions[name]["group_devices"] or ()) - set(bridges)

        problems = []
        for names in (*((name,) for name in self.iommu_groups.alone), *self.iommu_groups.together):
            wanted = {functions[name]["bdf"] for name in names}
            for name in names:
                if endpoints(name) != wanted:
                    found = ", ".join(sorted(endpoints(name))) or "nobody"
                    problems.append(f"the group of '{name}' holds {found}, expected {', '.join(sorted(wanted))}")
        return problems
