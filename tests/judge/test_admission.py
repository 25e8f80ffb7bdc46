"""Whether VFIO admits a group: what was observed is held to what the agent answered."""

from __future__ import annotations

import pytest

from harness.verdict import Outcome
from tests.judge.one_step import judge
from tests.judge.recording import Recording

STEP = {"assign": {"device": "nic", "domain": "d"}, "expect": {"refused": {"because_of": ["other"]}}}
STATUS = {
    "group": "8",
    "members": [
        {"bdf": "0000:05:00.0", "driver": None, "bridge": True},
        {"bdf": "0000:06:01.0", "driver": "vfio-pci", "bridge": False},
        {"bdf": "0000:06:02.0", "driver": "e1000", "bridge": False},
    ],
    "viable": False,
    "errno": 1,
    "domain": None,
}
WHY = "IOMMU group 8 is not viable"


def recording(*, status=STATUS, why=WHY):
    made = Recording()
    told = f"guest refused 'domain_attach': {why}"
    made.add("agent", "call", 0, op="domain_attach", args={}, error=told, duration_s=0.1)
    made.add("agent", "call", 0, op="group_status", args={}, ok=status, duration_s=0.1)
    addresses = {"nic": "0000:06:01.0", "other": "0000:06:02.0"}
    refusal = {"reason": WHY, "errno": 0}
    made.add("observation", "admission", 0, device="nic", refusal=refusal, status=STATUS, addresses=addresses)
    return made


def test_a_refusal_that_all_agree_on_is_proven():
    assert judge(STEP, recording(), devices=("nic", "other")) is Outcome.PASS


@pytest.mark.parametrize(
    "answered",
    [
        {"status": {**STATUS, "group": "9"}},
        {"status": {**STATUS, "errno": 2}},
        {"status": {**STATUS, "members": STATUS["members"][1:]}},
        {"why": "another reason"},
    ],
)
def test_an_observation_that_the_agent_did_not_answer_is_no_evidence(answered):
    assert judge(STEP, recording(**answered), devices=("nic", "other")) is Outcome.ERROR
