"""Judging the steps that are not a single DMA, on evidence made for each case."""

from __future__ import annotations

import pytest

from harness.steps.dmar_table import _RAM, _RESERVED, _memory
from harness.verdict import Outcome
from harness.vtd.acpi_table import TableHeader
from harness.vtd.dmar_table import DeviceScope, DmarTable, RemappingStructure, ScopeType, StructureType
from harness.vtd.registers import DEFAULT_BASE
from tests.judge.one_step import judge as _judge
from tests.judge.one_step import judgement
from tests.judge.recording import BEFORE, PAYLOAD, PHYSICAL, Recording


class TestTraffic:
    STEP = {"traffic": {"device": "nic", "frames": 4, "size": 100}}

    def _exchange(self, **changes):
        guest = {"frames": 4, "sha256": "aa"} | changes.get("guest", {})
        host = {"sent_sha256": "aa", "asked_sha256": "bb", "received_frames": 4, "received_sha256": "bb"}
        host |= changes.get("host", {})
        recording = Recording()
        recording.add(
            "observation",
            "traffic",
            0,
            device="nic",
            source_id="01:00.0",
            load={"frames": 4, "size": 100},
            guest={"received": guest},
            host=host,
        )
        if changes.get("watching", True):
            recording.add("trace", "watching", 0, events=["vtd_dmar_translate"])
        recording.add("trace", "translated", 0, source_id="01:00.0", count=changes.get("translations", 30))
        return recording

    def test_the_same_bytes_at_both_ends_pass(self):
        assert _judge(self.STEP, self._exchange()) is Outcome.PASS

    @pytest.mark.parametrize("changes", [
        {"guest": {"sha256": "xx"}}, {"guest": {"frames": 3}}, {"guest": {"frames": 0}},
        {"host": {"received_sha256": "xx"}}, {"host": {"received_frames": 3}},
    ])  # fmt: skip
    def test_other_bytes_at_one_end_fail(self, changes):
        assert _judge(self.STEP, self._exchange(**changes)) is Outcome.FAIL

    def test_a_fault_meanwhile_fails(self):
        recording = self._exchange()
        recording.add("trace", "fault", 0, source_id="01:00.0", access="read", reason=6, first=0, last=0, count=1)

        assert _judge(self.STEP, recording) is Outcome.FAIL

    @pytest.mark.parametrize(("watching", "outcome"), [(True, Outcome.PASS), (False, Outcome.ERROR)])
    def test_each_exchange_needs_a_trace_of_its_own(self, watching, outcome):
        step = {"replug": {"device": "nic", "times": 2, "frames": 4, "size": 100}}
        recording = self._exchange()
        recording.entries += self._exchange(watching=watching).entries
        recording.add("observation", "unplugged", 0, groups_before={"0": {}}, groups_after={"0": {}})

        assert _judge(step, recording) is outcome

    def test_a_nic_that_goes_around_the_unit_fails(self):
        assert _judge(self.STEP, self._exchange(translations=7)) is Outcome.FAIL

    def test_a_trace_that_was_not_on_proves_nothing(self):
        around = {"traffic": {**self.STEP["traffic"], "translated": "off"}}

        assert _judge(self.STEP, self._exchange(watching=False)) is Outcome.ERROR
        assert _judge(around, self._exchange(watching=False, translations=0)) is Outcome.ERROR

    def test_translations_of_another_device_do_not_count(self):
        recording = self._exchange()
        recording.change(lambda entry: entry["kind"] == "translated", source_id="02:00.0")

        assert _judge(self.STEP, recording) is Outcome.FAIL

    def test_a_nic_that_must_go_around_the_unit_is_held_to_it(self):
        around = {"traffic": {**self.STEP["traffic"], "translated": "off"}}

        assert _judge(around, self._exchange(translations=0)) is Outcome.PASS
        assert _judge(around, self._exchange(translations=1)) is Outcome.FAIL

    def test_no_exchange_is_an_error(self):
        assert _judge(self.STEP, Recording()) is Outcome.ERROR


class TestBouncedTraffic:
    SPARED = {"traffic": {"device": "nic", "frames": 4, "size": 100, "bounced": "off"}}
    COPIED = {"traffic": {"device": "nic", "frames": 4, "size": 100, "bounced": "on", "translated": "off"}}
    OWN = "0000:01:00.0"

    def _seen(self, exchange, *, count=0, mask=0xFFFFFFFF, lowest=0x101A80042, of=OWN, **changes):
        bounces = {of: {"count": count, "mask": mask, "lowest": lowest, "bytes": 100 * count}} if count else {}
        told = {"before": {"used": 0}, "tracing": True, "lost": 0, "bounces": bounces, "used": count, "slots": 2048}
        exchange.add("observation", "bounces", 0, function=self.OWN, **(told | changes))
        return exchange

    def _spared(self, *, translations=30, lifted=30, **changes):
        recording = TestTraffic()._exchange(translations=translations)
        recording.change(lambda entry: entry["kind"] == "translated", lifted=lifted)
        return self._seen(recording, **changes)

    def _copied(self, **changes):
        return self._seen(TestTraffic()._exchange(translations=0), **({"count": 20} | changes))

    def test_each_half_passes_where_it_belongs(self):
        assert _judge(self.SPARED, self._spared()) is Outcome.PASS
        assert _judge(self.COPIED, self._copied()) is Outcome.PASS

    def test_bounces_that_must_not_be_fail(self):
        assert _judge(self.SPARED, self._spared(count=20)) is Outcome.FAIL
        assert _judge(self.SPARED, self._spared(count=20, lifted=0)) is Outcome.FAIL

    def test_bounces_that_must_be_fail_if_there_are_none(self):
        assert _judge(self.COPIED, self._copied(count=0)) is Outcome.FAIL

    @pytest.mark.parametrize("changes", [
        {"used": 0},                      # the trace says so, the counter does not
        {"count": 0, "used": 20},         # and the other way round
        {"count": 7},                     # not each of the eight frames
        {"of": "0000:02:00.0"},           # those of another device
        {"mask": 0xFFFFFFFFFFFFFFFF},     # the device could have reached it
        {"lowest": 0xFFFFF000},           # as it could this
        {"tracing": False}, {"lost": 1},  # the trace is not whole
        {"before": {"used": 21}},         # others use the slots
        {"slots": 0},                     # there are none
    ])  # fmt: skip
    def test_witnesses_that_disagree_or_are_not_whole_prove_no_bounce(self, changes):
        assert _judge(self.COPIED, self._copied(**changes)) is Outcome.ERROR

    @pytest.mark.parametrize("changes", [
        {"used": 1}, {"count": 20, "used": 0}, {"tracing": False}, {"lost": 1}, {"slots": 0},
        {"lifted": 0}, {"lifted": 29},               # its memory lay below 4 GiB, or some of it
    ])  # fmt: skip
    def test_nor_that_none_was_needed(self, changes):
        assert _judge(self.SPARED, self._spared(**changes)) is Outcome.ERROR

    def test_too_few_translations_prove_nothing_either(self):
        assert _judge(self.SPARED, self._spared(translations=7, lifted=7)) is Outcome.ERROR

    def test_nobody_looked(self):
        assert _judge(self.SPARED, TestTraffic()._exchange()) is Outcome.ERROR

    def test_other_bytes_fail_all_the_same(self):
        recording = self._copied()
        recording.change(lambda entry: entry["kind"] == "traffic", guest={"received": {"frames": 4, "sha256": "xx"}})

        assert _judge(self.COPIED, recording) is Outcome.FAIL


class TestAdmission:
    REFUSED = {"assign": "rogue", "expect": {"refused": {"because_of": "sibling"}}}
    ACCEPTED = {"assign": "rogue", "expect": "accepted"}
    ROGUE, SIBLING, PORT = "0000:02:01.0", "0000:02:02.0", "0000:00:02.0"
    DEVICES = ("rogue", "sibling")

    def _attempt(self, *, refused, drivers=None, **changes):
        drivers = {self.ROGUE: "vfio-pci", self.SIBLING: "e1000" if refused else "vfio-pci"} | (drivers or {})
        members = [{"bdf": self.PORT, "driver": "pcieport", "bridge": True}]
        members += [{"bdf": bdf, "driver": driver, "bridge": False} for bdf, driver in drivers.items()]
        status = {"group": "5", "members": members, "viable": not refused, "errno": 1 if refused else 0}
        status |= {"domain": None if refused else "d"} | changes
        refusal = {"reason": "IOMMU group 5 is not viable", "errno": 0} if refused else None
        recording = Recording()
        addresses = {"rogue": self.ROGUE, "sibling": self.SIBLING}
        recording.add(
            "observation", "admission", 0, device="rogue", refusal=refusal, status=status, addresses=addresses
        )
        return recording

    def _outcome(self, step, recording):
        return _judge(step, recording, devices=self.DEVICES)

    def test_each_passes_where_it_belongs(self):
        assert self._outcome(self.REFUSED, self._attempt(refused=True)) is Outcome.PASS
        assert self._outcome(self.ACCEPTED, self._attempt(refused=False)) is Outcome.PASS
        assert self._outcome(self.ACCEPTED, self._attempt(refused=False, drivers={self.SIBLING: None})) is Outcome.PASS

    def test_each_fails_where_the_other_came(self):
        assert self._outcome(self.REFUSED, self._attempt(refused=False)) is Outcome.FAIL
        assert self._outcome(self.ACCEPTED, self._attempt(refused=True)) is Outcome.FAIL

    def test_a_refusal_because_of_others_than_those_named_fails(self):
        other = {self.SIBLING: "vfio-pci", "0000:02:03.0": "e1000"}
        more = {"0000:02:03.0": "e1000"}

        assert self._outcome(self.REFUSED, self._attempt(refused=True, drivers=other)) is Outcome.FAIL
        assert self._outcome(self.REFUSED, self._attempt(refused=True, drivers=more)) is Outcome.FAIL

    @pytest.mark.parametrize("step", [REFUSED, ACCEPTED])
    @pytest.mark.parametrize(("refused", "changes"), [
        (True, {"viable": True}), (True, {"errno": 0}), (True, {"domain": "d"}),
        (True, {"drivers": {"0000:02:02.0": "vfio-pci"}}),  # refused, although nobody is in the way
        (False, {"viable": False}), (False, {"errno": 1}), (False, {"domain": None}),
        (False, {"drivers": {"0000:02:02.0": "e1000"}}),  # accepted, although somebody is
    ])  # fmt: skip
    def test_contradictory_answers_prove_nothing(self, step, refused, changes):
        assert self._outcome(step, self._attempt(refused=refused, **changes)) is Outcome.ERROR

    def test_the_verdict_names_the_sibling_and_its_driver(self):
        told = judgement(self.REFUSED, self._attempt(refused=True), devices=self.DEVICES)

        assert told.findings[0].text == (
            "VFIO refuses group 5 of 'rogue', because kernel drivers hold 'sibling' at 0000:02:02.0 (e1000)"
        )

    def test_what_was_not_recorded_is_an_error(self):
        assert self._outcome(self.REFUSED, Recording()) is Outcome.ERROR


class TestReplug:
    STEP = {"replug": {"device": "nic", "times": 2, "frames": 4, "size": 100}}

    def _rounds(self, count, *, left=None):
        recording = Recording()
        for _ in range(count):
            recording.entries += TestTraffic()._exchange().entries
        recording.add("observation", "unplugged", 0, groups_before={"0": {}}, groups_after={"0": {}} | (left or {}))
        return recording

    def test_all_rounds_and_nothing_left_pass(self):
        assert _judge(self.STEP, self._rounds(2)) is Outcome.PASS

    def test_a_missing_round_is_an_error(self):
        assert _judge(self.STEP, self._rounds(1)) is Outcome.ERROR

    def test_a_group_left_over_fails(self):
        assert _judge(self.STEP, self._rounds(2, left={"9": {}})) is Outcome.FAIL


class TestIommuState:
    STEP = {"iommu_state": {"translation": "on", "domains": "DMA", "interrupt_remapping": "on"}}
    ON = 1 << 31 | 1 << 25

    def _state(self, *, gsts=ON, types=("DMA", "DMA"), announced=True):
        recording = Recording()
        groups = {str(number): {"type": kind} for number, kind in enumerate(types)}
        recording.add("observation", "state", 0, gsts=gsts, sysfs={"groups": groups}, announced=announced)
        return recording

    def test_agreement_passes(self):
        assert _judge(self.STEP, self._state()) is Outcome.PASS

    @pytest.mark.parametrize("changes", [
        {"gsts": 1 << 25}, {"gsts": 1 << 31}, {"types": ()}, {"types": ("DMA", "identity")}, {"announced": False},
    ])  # fmt: skip
    def test_one_witness_against_it_fails(self, changes):
        assert _judge(self.STEP, self._state(**changes)) is Outcome.FAIL

    def test_off_means_no_groups_and_silence(self):
        step = {"iommu_state": {"translation": "off", "domains": "none"}}

        assert _judge(step, self._state(gsts=0, types=(), announced=False)) is Outcome.PASS
        assert _judge(step, self._state(gsts=0, types=("DMA",), announced=False)) is Outcome.FAIL


class TestIommuGroups:
    def _groups(self, *groups, bridges=(), kind="DMA"):
        recording = Recording()
        functions = {
            member: {"bdf": member, "iommu_group": number, "group_type": kind, "group_devices": [*members, *bridges]}
            for number, members in enumerate(groups)
            for member in members
        }
        recording.add("observation", "groups", 0, functions=functions, bridges=list(bridges))
        return recording

    @pytest.mark.parametrize(("groups", "outcome"), [
        ((["a"], ["b", "c"]), Outcome.PASS),
        ((["a", "b", "c"],), Outcome.FAIL),
        ((["a"], ["b"], ["c"]), Outcome.FAIL),
        ((["a", "x"], ["b", "c"]), Outcome.FAIL),
        ((["a"], ["b", "c", "x"]), Outcome.FAIL),
    ])  # fmt: skip
    def test_company_is_held_to_the_statement(self, groups, outcome):
        step = {"iommu_groups": {"alone": ["a"], "together": [["b", "c"]]}}

        assert _judge(step, self._groups(*groups), devices=("a", "b", "c")) is outcome

    def test_bridges_are_no_company(self):
        step = {"iommu_groups": {"alone": ["a"]}}

        assert _judge(step, self._groups(["a"], bridges=["port"]), devices=("a",)) is Outcome.PASS

    def test_a_device_in_no_group_is_not_alone_in_one(self):
        recording = Recording()
        functions = {"a": {"bdf": "a", "iommu_group": None, "group_type": None, "group_devices": None}}
        recording.add("observation", "groups", 0, functions=functions, bridges=[])

        assert _judge({"iommu_groups": {"alone": ["a"]}}, recording, devices=("a",)) is Outcome.FAIL

    def test_the_type_is_the_effective_one(self):
        step = {"iommu_groups": {"alone": ["a"], "type": "identity"}}

        assert _judge(step, self._groups(["a"]), devices=("a",)) is Outcome.FAIL


class TestStorm:
    STEP = {"storm": {"device": "nic", "dmas": 3, "write": 1024, "to": "victim", "at_least": 500}}

    def _storm(self, *, traced=768, announced=3, after=BEFORE):
        recording = Recording()
        for number in range(3):
            if number < announced:
                recording.add(
                    "agent", "dma", 0,
                    device="nic", bdf="0000:01:00.0", direction="to-memory", address=0x5000, length=1024,
                    purpose="attack",
                )  # fmt: skip
            recording.bytes_at(0, BEFORE * 16, label="before")
            recording.bytes_at(0, after * 16, label="after")
            recording.add(
                "observation", "dma", 0, device="nic", function="0000:01:00.0", source_id="01:00.0", access="write",
                address=0x5000, physical=PHYSICAL, length=1024, target="victim", bystanders={},
                payload=PAYLOAD.hex() * 16, before=BEFORE.hex() * 16, after=after.hex() * 16,
            )  # fmt: skip
        recording.add(
            "trace", "fault", 0, source_id="01:00.0", access="write", reason=5, first=0x5000, last=0x53FC, count=traced
        )
        text = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x5000 [fault reason 0x05] PTE Write"
        recording.log(text, 0)
        recording.add("console", "line", 0, text=text)
        return recording

    def test_enough_refusals_pass(self):
        assert _judge(self.STEP, self._storm()) is Outcome.PASS

    def test_too_few_refusals_fail(self):
        assert _judge(self.STEP, self._storm(traced=499)) is Outcome.FAIL

    def test_a_dma_that_was_not_announced_is_an_error(self):
        assert _judge(self.STEP, self._storm(announced=2)) is Outcome.ERROR

    def test_bytes_that_moved_contradict_the_reports(self):
        assert _judge(self.STEP, self._storm(after=PAYLOAD)) is Outcome.ERROR

    def test_a_dma_that_was_not_issued_is_an_error(self):
        more = {"storm": {**self.STEP["storm"], "dmas": 4}}

        assert _judge(more, self._storm()) is Outcome.ERROR


class TestRead:
    STEP = {"dma": {"device": "nic", "read": 64, "from": "secret"}, "expect": "blocked"}
    SECRET = bytes(range(64))

    def _read(self, out, *, seen="memory"):
        recording = Recording()
        recording.bytes_at(0, self.SECRET, label="secret as it stands")
        recording.add(
            "agent", "dma", 0, device="nic", bdf="0000:01:00.0", direction="from-memory", address=0x5000, length=64,
            purpose="attack",
        )  # fmt: skip
        if seen == "memory":
            recording.bytes_at(0, out or b"", label="what nic holds")
            recording.entries[-1]["data"]["gpa"] = 0x9000
        elif seen:
            recording.add("wire", seen, 0, data="" if out is None else f"ffff{out.hex()}")
        recording.add(
            "observation", "dma", 0, device="nic", function="0000:01:00.0", source_id="01:00.0", access="read",
            address=0x5000, physical=PHYSICAL, length=64, target="secret", bystanders={},
            secret=self.SECRET.hex(), came_out=None if out is None else out.hex(),
        )  # fmt: skip
        fault = {"source_id": "01:00.0", "access": "read", "reason": 6, "first": 0x5000, "last": 0x503C, "count": 16}
        recording.add("trace", "fault", 0, **fault)
        text = "DMAR: [DMA Read NO_PASID] Request device [01:00.0] fault addr 0x5000 [fault reason 0x06] PTE Read"
        recording.log(text, 0)
        recording.add("console", "line", 0, text=text)
        return recording

    def test_zeros_in_the_device_are_no_secret(self):
        assert _judge(self.STEP, self._read(bytes(64))) is Outcome.PASS

    def test_a_silent_wire_tells_that_nothing_left(self):
        assert _judge(self.STEP, self._read(None, seen="silent")) is Outcome.PASS

    @pytest.mark.parametrize(
        "out",
        [SECRET, SECRET[:4] + bytes(60), bytes(60) + SECRET[60:], bytes(3) + SECRET[8:16] + bytes(53)],
        ids=["all", "first word", "last word", "shifted"],
    )
    def test_a_leak_contradicts_the_reports(self, out):
        assert _judge(self.STEP, self._read(out)) is Outcome.ERROR
        assert _judge(self.STEP, self._read(out, seen="frame")) is Outcome.ERROR

    def test_what_came_out_must_have_been_looked_at(self):
        assert _judge(self.STEP, self._read(bytes(64), seen=None)) is Outcome.ERROR
        assert _judge(self.STEP, self._read(None, seen=None)) is Outcome.ERROR


class TestDmarTable:
    STEP = {"dmar_table": {"address_width": 48, "interrupt_remapping": "on"}}
    SCOPES = (
        DeviceScope(ScopeType.IO_APIC, 0xFF, ((0, 0),)),
        DeviceScope(ScopeType.ENDPOINT, 0, ((1, 0),)),
        DeviceScope(ScopeType.BRIDGE, 0, ((2, 0),)),
    )
    MADT = TableHeader(signature=b"APIC", revision=3).encode(bytes(8) + b"\1\x0c" + bytes(10))

    def _seen(self, *, scopes=SCOPES, base=DEFAULT_BASE, **changes):
        unit = RemappingStructure(StructureType.DRHD, base=base, scopes=scopes)
        said = ["Host address width 48", f"DRHD base: {base:#016x} flags: 0x0", "No RMRR found", "No ATSR found"]
        recording = Recording()
        recording.add(
            "observation",
            "dmar",
            0,
            **{
                "dmar": DmarTable(48, 1, (unit,)).encode().hex(),
                "madt": self.MADT.hex(),
                "functions": {"00:01.0": 0, "00:02.0": 1},
                "options": {"aw-bits": 48, "intremap": "on", "device-iotlb": False},
                "memory": [[0x10_0000, 0x1FFF_FFFF]],
                "lines": [f"DMAR: {words}" for words in said],
                **changes,
            },
        )
        return recording

    def _reserving(self, base, limit, **changes):
        """What is seen with an RMRR of the first endpoint."""
        unit = RemappingStructure(StructureType.DRHD, base=DEFAULT_BASE, scopes=self.SCOPES)
        area = RemappingStructure(StructureType.RMRR, base=base, limit=limit, scopes=self.SCOPES[1:2])
        recording = self._seen(dmar=DmarTable(48, 1, (unit, area)).encode().hex(), **changes)
        lines = recording.entries[-1]["data"]["lines"]
        lines[2] = f"DMAR: RMRR base: {base:#016x} end: {limit:#016x}"
        return recording

    def _stating(self, *words):
        return {"dmar_table": {**self.STEP["dmar_table"], "wrong": list(words)}}

    def test_a_table_that_all_witnesses_agree_with_passes(self):
        assert _judge(self.STEP, self._seen()) is Outcome.PASS

    @pytest.mark.parametrize(
        "changes",
        [
            {"functions": {"00:01.0": 0, "00:02.0": 0}},
            {"functions": {"00:01.0": 0, "00:02.0": 1, "00:03.0": 0}},
            {"functions": {"00:01.0": 0}},
            {"options": {"aw-bits": 39, "intremap": "on", "device-iotlb": False}},
            {"lines": ["DMAR: Host address width 48"]},
            {"scopes": SCOPES[1:]},
            {"base": 0},
        ],
    )
    def test_a_witness_that_saw_otherwise_fails_it(self, changes):
        assert _judge(self.STEP, self._seen(**changes)) is Outcome.FAIL

    def test_a_remark_is_told_and_denies_nothing(self):
        unit = RemappingStructure(StructureType.DRHD, base=DEFAULT_BASE, scopes=self.SCOPES)
        newer = DmarTable(48, 1, (unit,), TableHeader(signature=b"DMAR", revision=2)).encode().hex()
        told = judgement(self.STEP, self._seen(dmar=newer))

        assert told.outcome is Outcome.PASS
        (table,) = [each for each in told.witnesses if each.name == "table"]
        assert (
            table.evidence
            == "agrees with the table; remark: at 0x8: revision 2 is above the known one, 1 (section 8.1)"
        )
        assert _judge(self._stating("revision 2 is above"), self._seen(dmar=newer)) is Outcome.PASS
        assert _judge(self._stating("revision 2 is above"), self._seen()) is Outcome.FAIL

    @pytest.mark.parametrize(
        ("reserved", "outcome"),
        [
            ({"reserved": [[0xFED0_0000, 0xFEDF_FFFF]]}, Outcome.PASS),
            ({"reserved": [[0xFEDA_0000, 0xFEDA_FFFF]]}, Outcome.PASS),
            ({"reserved": [[0xFEDA_0000, 0xFEDA_EFFF], [0xFEDA_F000, 0xFEDA_FFFF]]}, Outcome.FAIL),
            ({"reserved": [[0xB000_0000, 0xBFFF_FFFF]]}, Outcome.FAIL),
            ({"reserved": []}, Outcome.FAIL),
            ({}, Outcome.PASS),  # a journal from before this was recorded
        ],
    )
    def test_reserved_memory_must_be_reserved_in_the_memory_map(self, reserved, outcome):
        assert _judge(self.STEP, self._reserving(0xFEDA_0000, 0xFEDA_FFFF, **reserved)) is outcome

    @pytest.mark.parametrize(
        ("lines", "usable", "reserved"),
        [
            (["0000000100000-0x000000001ffddfff] usable", "000feffc000-0x00000000feffffff] reserved"], 1, 1),
            (
                ["0000000100000-0x000000001ffddfff]  System RAM", "000feffc000-0x00000000feffffff]  device reserved"],
                1,
                1,
            ),
            (["0000000100000-0x000000001ffddfff] ACPI NVS", "000feffc000-0x00000000feffffff] ACPI data"], 0, 1),
            (["0000000100000-0x000000001ffddfff] unusable", "0x000feffc000-0x00000000feffffff]"], 0, 0),
        ],
    )
    def test_the_memory_map_is_read_as_each_kernel_shows_it(self, lines, usable, reserved):
        texts = [f"BIOS-e820: [mem 0x{line}" for line in lines]

        assert len(_memory(texts, _RAM)) == usable
        assert len(_memory(texts, _RESERVED)) == reserved

    @pytest.mark.parametrize("line", ["DRHD base: 0x000000fed80000 flags: 0x1", "[Firmware Bug]: a bad table"])
    def test_what_else_the_kernel_said_of_it_fails_it(self, line):
        recording = self._seen()
        recording.entries[-1]["data"]["lines"].append(f"DMAR: {line}")
        assert _judge(self.STEP, recording) is Outcome.FAIL

    @pytest.mark.parametrize("part", ["options", "functions", "memory", "lines", "dmar", "madt"])
    def test_a_witness_that_saw_nothing_proves_nothing(self, part):
        empty = {"options": {}, "functions": {}, "dmar": "", "madt": ""}.get(part, [])
        assert _judge(self.STEP, self._seen(**{part: empty})) is Outcome.ERROR

    def test_what_is_stated_to_be_wrong_must_be_found_and_nothing_else(self):
        recording = self._seen(functions={"00:01.0": 0, "00:02.0": 0})
        assert _judge(self._stating("00:02.0 as a bridge, which it is not"), recording) is Outcome.PASS
        assert _judge(self._stating("00:02.0 as a bridge, which it is not", "00:09.0"), recording) is Outcome.FAIL
        assert _judge(self._stating("00:01.0"), recording) is Outcome.FAIL
        assert _judge(self._stating("00:01.0"), self._seen()) is Outcome.FAIL


class TestReadings:
    """No byte is believed that was not read, at its place and in its order."""

    @pytest.mark.parametrize("label", ["before", "after"])
    def test_each_of_the_two_readings_is_demanded_although_they_are_alike(self, label):
        recording = TestStorm()._storm()
        recording.entries.remove(next(e for e in recording.entries if e["data"].get("label") == label))

        assert _judge(TestStorm.STEP, recording) is Outcome.ERROR

    def test_the_secrets_own_reading_does_not_tell_what_the_device_holds(self):
        recording = TestRead()._read(TestRead.SECRET)
        recording.drop(lambda e: e["data"].get("label") == "what nic holds")

        assert "neither read from memory nor seen on its wire" in judgement(TestRead.STEP, recording).findings[0].text

    def test_another_dma_that_was_announced_too_is_an_error(self):
        recording = TestStorm()._storm()
        other = next(e for e in recording.entries if e["kind"] == "dma")
        recording.entries.insert(0, {**other, "data": {**other["data"], "address": 0x9000}})

        assert _judge(TestStorm.STEP, recording) is Outcome.ERROR
