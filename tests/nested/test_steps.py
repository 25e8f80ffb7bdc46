"""Judging what is done with nested guests, on evidence made for each case and spoiled one thing at a time."""

from __future__ import annotations

import copy
from hashlib import sha256

import pytest

from harness.verdict import Outcome
from tests.judge.one_step import denying, judge, judgement
from tests.judge.recording import Recording

FAIL, ERROR, PASS = Outcome.FAIL, Outcome.ERROR, Outcome.PASS


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def of(kind):
    return lambda entry: (entry["source"], entry["kind"]) == ("observation", kind)


def fault(recording, source="01:00.0"):
    recording.add("trace", "fault", 0, source_id=source, access="read", reason=6, first=0, last=0, count=1)


class TestTranslate:
    STEP = {"translate": {"device": "nic", "guest": "alice", "pages": 2}}
    PAGES = ((0x5000, 0x1800_5000), (0x9000, 0x1234_5000))

    def recording(self):
        recording = Recording()
        for inside, outside in self.PAGES:
            content = inside.to_bytes(8, "little") * 512
            for label in ("as filled", "where the walk leads"):
                recording.add("memory", "read", 0, label=label, gpa=outside, size=4096, sha256=digest(content))
            recording.add(
                "observation", "translated", 0, guest_physical=inside, host_physical=outside,
                ends={"read": outside, "write": outside}, page=4096, written=digest(content), stands=digest(content),
            )  # fmt: skip
        recording.add("observation", "beyond", 0, guest_physical=0x1000_0000, end=None, reason=5)
        return recording

    def spoiled(self, kind="translated", **data):
        """The last observation of a kind, with other data."""
        recording = self.recording()
        last = [entry for entry in recording.entries if of(kind)(entry)][-1]
        recording.change(lambda entry: entry is last, **data)
        return recording

    def test_walks_that_lead_to_what_the_guest_wrote_pass(self):
        found = judgement(self.STEP, self.recording())

        assert found.outcome is PASS
        assert {witness.name: witness.verdict.value for witness in found.witnesses} == {
            "walk": "confirms",
            "others": "confirms",
        }
        assert "0x5000 -> 0x18005000" in found.witnesses[0].evidence

    @pytest.mark.parametrize("changes", [
        {"ends": {"read": 0x1234_5000, "write": 0x1234_6000}},  # a write leads elsewhere
        {"ends": {"read": 0x1234_6000, "write": 0x1234_5000}},  # a read does
        {"ends": {"read": 0x1234_5000, "write": None}, "stands": None},
        {"ends": {"read": None, "write": 0x1234_5000}},
        {"ends": {"read": 0x9000, "write": 0x9000}},            # this page is not translated
        {"written": digest(b"other bytes")},
        {"host_physical": 0x1234_6000},                         # the platform's kernel has the page elsewhere
    ])  # fmt: skip
    def test_one_page_that_is_not_where_it_is_led_to_fails(self, changes):
        assert judge(self.STEP, self.spoiled(**changes)) is FAIL
        assert denying(self.STEP, self.spoiled(**changes)) == {"walk"}

    @pytest.mark.parametrize("changes", [
        {"ends": {}}, {"ends": {"write": 0x1234_5000}}, {"ends": {"read": 0x1234_5000}},
        {"stands": None}, {"stands": digest(b"never read")},
    ])  # fmt: skip
    def test_one_page_that_was_not_walked_or_not_read_is_an_error(self, changes):
        assert judge(self.STEP, self.spoiled(**changes)) is ERROR

    def test_bytes_that_were_not_read_from_outside_are_an_error(self):
        recording = self.recording()
        recording.drop(lambda entry: entry["source"] == "memory" and entry["data"]["gpa"] == 0x1234_5000)

        assert judge(self.STEP, recording) is ERROR

    def test_bytes_that_were_read_elsewhere_do_not_count(self):
        recording = self.recording()
        recording.change(
            lambda entry: entry["source"] == "memory" and entry["data"]["gpa"] == 0x1234_5000, gpa=0x1234_6000
        )

        assert judge(self.STEP, recording) is ERROR

    def test_pages_that_all_lie_at_the_guests_own_address_fail(self):
        recording = self.recording()
        for entry in recording.entries:
            data = entry["data"]
            if of("translated")(entry):
                inside = data["guest_physical"]
                data |= {"host_physical": inside, "ends": {"read": inside, "write": inside}}
            elif entry["source"] == "memory":
                data["gpa"] = {outside: inside for inside, outside in self.PAGES}[data["gpa"]]

        found = judgement(self.STEP, recording)
        assert found.outcome is FAIL
        assert "nothing was translated" in found.findings[0].text

    @pytest.mark.parametrize(
        "changes", [{"end": 0x1900_0000, "reason": None}, {"end": 0x1900_0000}, {"reason": None}, {"reason": 0}]
    )
    def test_memory_beyond_the_guests_that_is_reached_too_fails(self, changes):
        assert judge(self.STEP, self.spoiled("beyond", **changes)) is FAIL

    def test_nothing_is_known_of_walks_that_are_missing(self):
        for kind in ("translated", "beyond"):
            recording = self.recording()
            last = [entry for entry in recording.entries if of(kind)(entry)][-1]
            recording.drop(lambda entry, last=last: entry is last)
            assert judge(self.STEP, recording) is ERROR, kind
        more = {"translate": {**self.STEP["translate"], "pages": 3}}
        assert judge(more, self.recording()) is ERROR
        assert judge(self.STEP, Recording()) is ERROR

    @pytest.mark.parametrize("source", ["01:00.0", "07:00.0"])
    def test_a_fault_of_anybody_fails(self, source):
        recording = self.recording()
        fault(recording, source)

        assert judge(self.STEP, recording) is FAIL
        assert denying(self.STEP, recording) == {"others"}


class TestStart:
    STEP = {"start": {"guest": "alice", "assigns": ["nic", "other"]}}

    def recording(self):
        recording = Recording()
        recording.add(
            "observation", "guest", 0, guest="alice", hello={"kernel": "6.1.0", "boot_id": "b"}, virtualization="SVM"
        )
        for name, address in (("nic", "0000:01:00.0"), ("other", "0000:02:00.0")):
            recording.add(
                "observation", "assigned", 0, guest="alice", device=name, source_id=address[5:], address=address,
                driver="e1000e", facts={},
            )  # fmt: skip
        return recording

    def test_a_guest_that_answers_and_drives_its_devices_passes(self):
        found = judgement(self.STEP, self.recording())

        assert (found.outcome, len(found.findings)) == (PASS, 3)
        assert "Linux 6.1.0 under KVM with SVM" in found.findings[0].text

    def test_a_guest_that_was_not_started_is_an_error(self):
        recording = self.recording()
        recording.drop(of("guest"))

        assert judge(self.STEP, recording) is ERROR

    @pytest.mark.parametrize("name", ["nic", "other"])
    def test_a_device_that_was_not_handed_over_is_an_error(self, name):
        recording = self.recording()
        recording.drop(lambda entry: of("assigned")(entry) and entry["data"]["device"] == name)

        found = judgement(self.STEP, recording)
        assert found.outcome is ERROR
        assert [each.text for each in found.findings if each.outcome is ERROR] == [f"'{name}' was not handed over"]

    def test_a_fault_of_anybody_fails(self):
        recording = self.recording()
        fault(recording)

        assert judge(self.STEP, recording) is FAIL


class TestCompare:
    STEP = {"compare": {"guest": "alice", "nics": ["slow", "fast"], "frames": 10, "size": 100, "rounds": 3}}
    SECONDS = {"slow": (2.0, 4.0, 1.0), "fast": (0.5, 0.25, 0.2)}

    def recording(self):
        recording = Recording()
        for number in range(4):
            for name, seconds in self.SECONDS.items():
                recording.add(
                    "observation", "traffic", 0, device=name, source_id="01:00.0", load={"frames": 10, "size": 100},
                    guest={"received": {"frames": 10, "sha256": "aa"}},
                    host={"sent_sha256": "aa", "asked_sha256": "bb", "received_frames": 10, "received_sha256": "bb"},
                )  # fmt: skip
                recording.add(
                    "observation", "measured" if number else "warmed-up", 0, nic=name,
                    load={"frames": 10, "size": 100}, elapsed_s=seconds[number - 1] if number else 99.0,
                    round_trips_s=[0.001, 0.003, 0.002], exits={"exits": 40, "io_exits": 1}, cpu_s=0.1,
                )  # fmt: skip
        return recording

    def test_the_same_bytes_over_each_nic_pass_and_are_charted(self):
        found = judgement(self.STEP, self.recording())

        assert (found.outcome, found.landed) == (PASS, None)
        charts = {chart.title: chart for chart in found.charts}
        assert len(charts) == 4
        throughput = charts["Throughput"]
        assert [(bar.label, bar.value, bar.samples) for bar in throughput.bars] == [
            ("slow", 10.0, (10.0, 5.0, 20.0)),
            ("fast", 80.0, (40.0, 80.0, 100.0)),
        ]
        assert (throughput.unit, throughput.better) == ("frames/s", "more")
        assert [bar.value for bar in charts["Round trip of one frame"].bars] == [2.0, 2.0]
        assert [bar.value for bar in charts["Exits of the virtual processor"].bars] == [2.0, 2.0]
        assert [bar.value for bar in charts["Processor time of QEMU"].bars] == [5.0, 5.0]

    def test_no_figure_decides_an_outcome(self):
        recording = self.recording()
        recording.change(of("measured"), elapsed_s=1e6, cpu_s=1e6, exits={"exits": 0}, round_trips_s=[60.0])

        assert judge(self.STEP, recording) is PASS

    @pytest.mark.parametrize("changes", [
        {"guest": {"received": {"frames": 9, "sha256": "aa"}}},
        {"guest": {"received": {"frames": 10, "sha256": "xx"}}},
        {"host": {"sent_sha256": "aa", "asked_sha256": "bb", "received_frames": 9, "received_sha256": "bb"}},
        {"host": {"sent_sha256": "aa", "asked_sha256": "bb", "received_frames": 10, "received_sha256": "xx"}},
    ])  # fmt: skip
    @pytest.mark.parametrize("which", [0, -1], ids=["warming-up", "last"])
    def test_other_bytes_of_one_exchange_fail(self, changes, which):
        recording = self.recording()
        one = [entry for entry in recording.entries if of("traffic")(entry)][which]
        recording.change(lambda entry: entry is one, **changes)

        assert judge(self.STEP, recording) is FAIL

    @pytest.mark.parametrize("kind", ["traffic", "measured"])
    def test_a_round_that_is_missing_or_another_nics_is_an_error(self, kind):
        key = {"traffic": "device", "measured": "nic"}[kind]
        missing, mistaken = self.recording(), self.recording()
        last = [entry for entry in missing.entries if of(kind)(entry)][-1]
        missing.drop(lambda entry: entry is last)
        last = [entry for entry in mistaken.entries if of(kind)(entry)][-1]
        mistaken.change(lambda entry: entry is last, **{key: "slow"})

        assert judge(self.STEP, missing) is ERROR
        assert judge(self.STEP, mistaken) is ERROR

    def test_a_nic_that_was_never_measured_is_an_error(self):
        recording = self.recording()
        recording.change(of("measured"), nic="slow")

        assert judge(self.STEP, recording) is ERROR

    def test_a_round_without_round_trips_is_an_error(self):
        recording = self.recording()
        last = [entry for entry in recording.entries if of("measured")(entry)][-1]
        recording.change(lambda entry: entry is last, round_trips_s=[])

        assert judge(self.STEP, recording) is ERROR

    def test_warming_up_is_no_round(self):
        recording = self.recording()
        for entry in recording.entries:
            if of("warmed-up")(entry):
                entry["kind"] = "measured"

        assert judge(self.STEP, recording) is ERROR

    def test_a_fault_of_anybody_fails(self):
        recording = self.recording()
        fault(recording)

        assert judge(self.STEP, recording) is FAIL


class TestKill:
    STEP = {"kill": {"guest": "alice", "device": "nic"}}

    def recording(self, *, watching="vtd_dmar_translate", **changes):
        recording = Recording()
        recording.add("trace", "watching", 0, events=[watching])
        for page in (0x7000, 0x9000) * 2:
            recording.add("memory", "read", 0, label="where the NIC writes", gpa=page, size=4096, sha256="aa")
        told = {"before": 60, "after": 0, "pages": [0x7000, 0x9000], "written": [0x7000], "stained": []}
        recording.add("observation", "killed", 0, device="nic", source_id="01:00.0", **(told | changes))
        return recording

    def test_a_nic_that_wrote_and_writes_no_more_passes(self):
        assert judge(self.STEP, self.recording()) is PASS

    @pytest.mark.parametrize(("changes", "who"), [({"after": 1}, "translation"), ({"stained": [0x9000]}, "bytes")])
    def test_a_nic_that_still_writes_fails(self, changes, who):
        assert judge(self.STEP, self.recording(**changes)) is FAIL
        assert denying(self.STEP, self.recording(**changes)) == {who}

    @pytest.mark.parametrize("changes", [
        {"before": 49}, {"written": []}, {"pages": [0x7000, 0x9000, 0xB000]}, {"watching": "vtd_dmar_fault"},
        {"written": [0xB000]}, {"stained": [0xB000]},
    ])  # fmt: skip
    def test_a_nic_that_was_not_seen_writing_or_pages_that_were_not_read_are_an_error(self, changes):
        assert judge(self.STEP, self.recording(**changes)) is ERROR

    def test_a_fault_of_anybody_fails(self):
        recording = self.recording()
        fault(recording)

        assert judge(self.STEP, recording) is FAIL

    def test_nothing_is_known_of_one_that_was_not_killed(self):
        assert judge(self.STEP, Recording()) is ERROR


class TestWithdraw:
    STEP = {"withdraw": {"device": "nic", "guest": "alice"}}

    def recording(self, groups):
        recording = Recording()
        recording.add("observation", "withdrawn", 0, groups=groups, driver="e1000e")
        return recording

    def test_a_device_that_goes_and_comes_back_passes(self):
        assert judge(self.STEP, self.recording([5, 4, 5])) is PASS

    @pytest.mark.parametrize("groups", [[5, 5, 5], [5, 4, 4], [5, 3, 5], [5, 4, 6]])
    def test_a_group_left_over_or_missing_fails(self, groups):
        assert judge(self.STEP, self.recording(groups)) is FAIL

    def test_a_fault_of_anybody_fails(self):
        recording = self.recording([5, 4, 5])
        fault(recording)

        assert judge(self.STEP, recording) is FAIL

    def test_nothing_is_known_of_one_that_was_not_withdrawn(self):
        assert judge(self.STEP, Recording()) is ERROR


def test_no_recording_is_changed_by_judging_it():
    for case in (TestTranslate(), TestStart(), TestCompare()):
        recording = case.recording()
        before = copy.deepcopy(recording.entries)
        judge(case.STEP, recording)
        assert recording.entries == before
