"""Scenarios with nested guests: what is wrong with one is told at its line, and what a right one is planned as."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.equipment import HostFacts
from harness.machine.argv import MAX_ROOT_PORTS
from harness.machine.properties import Property, QemuFacts
from harness.plan import plan_all
from harness.source.diagnostics import InputError

OFFERED = QemuFacts(
    version="10.0.13",
    devices=frozenset({"edu", "e1000e", "igb", "virtio-net-pci", "intel-iommu"}),
    properties={
        "intel-iommu": {"caching-mode": Property("bool", default=False), "intremap": Property("OnOffAuto", "auto")}
    },
    cpus=frozenset({"max"}),
)
HOST = HostFacts(
    qemu=SimpleNamespace(version="10.0.13", digest="0"),
    facts=OFFERED,
    accelerator="tcg",
    accelerator_reason="",
    store=None,
    templates=None,
    slots=None,
    progress=print,
)

HEAD = "scenario: x\ntitle: X\n"
GUESTS = "guests:\n  alice: {nics: {soft: {model: virtio-net, via: up}}}\n  bob: {image: debian-12, memory: 512MiB}\n"
DEVICES = "devices:\n  nic: {model: e1000e}\n  up: {model: e1000e}\n  rogue: {model: edu}\n"
START = "  - start: {guest: alice, assigns: [nic]}\n"


@pytest.fixture
def planned(tmp_path):
    def plan(text):
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return plan_all([path], HOST)

    return plan


@pytest.fixture
def told(planned):
    def tell(text):
        with pytest.raises(InputError) as caught:
            planned(text)
        return [(found.line, found.column, found.message) for found in caught.value.diagnostics]

    return tell


# -- the model --------------------------------------------------------------------------------------------------------

STEPS = "steps:\n  - start: alice\n"
PROVOKE = "steps:\n  - provoke: {{device: {}, read: 64, at: 0x20000}}\n    expect: blocked\ncounter_proof: [unbroken]\n"
ALICE = "guests:\n  alice: {}\n" + STEPS


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        (
            "machine: {kind: bare}\nguests:\n  alice: {}\ndevices: {rogue: {model: edu}}\n" + PROVOKE.format("rogue"),
            4, 1, "on a bare machine nothing runs, so no guests either",
        ),
        (
            "machine: {memory: 1GiB}\nguests:\n  alice: {memory: 512MiB}\n  bob: {memory: 256MiB}\n" + STEPS,
            3, 19, "its guests need 1280MiB; found '1GiB'",
        ),
        (
            "guests:\n  alice: {memory: 128MiB}\n" + STEPS,
            4, 19, "a nested guest gets 192MiB to 2GiB, in whole MiB; found '128MiB'",
        ),
        (
            "guests:\n  alice: {memory: 4GiB}\n" + STEPS,
            4, 19, "a nested guest gets 192MiB to 2GiB, in whole MiB; found '4GiB'",
        ),
        (
            "guests:\n  alice: {nics: {soft: {model: e1000e, via: up}}}\n" + STEPS,
            4, 45, "'up' is no NIC among the devices",
        ),
        (
            "devices: {up: {model: edu}}\nguests:\n  alice: {nics: {soft: {model: e1000e, via: up}}}\n" + STEPS,
            5, 45, "'up' is no NIC among the devices",
        ),
        (
            "devices: {alice: {model: edu}}\nguests:\n  alice: {}\n" + STEPS,
            5, 3, "'alice' is already the name of a device",
        ),
        (
            "devices: {up: {model: igb}}\nguests:\n  alice: {nics: {up: {model: e1000e, via: up}}}\n" + STEPS,
            5, 18, "'up' is already the name of a device or guest",
        ),
        (
            "devices: {up: {model: igb}}\nguests:\n  bob: {}\n"
             "  alice: {nics: {bob: {model: e1000e, via: up}}}\n" + STEPS,
            6, 18, "'bob' is already the name of a device or guest",
        ),
        (
            "devices: {up: {model: igb}}\nguests:\n  bob: {nics: {soft: {model: e1000e, via: up}}}\n"
            "  alice: {nics: {soft: {model: e1000e, via: up}}}\n" + STEPS,
            6, 18, "'soft' is already the name of a NIC of guest 'bob'",
        ),
        (
            "devices:\n  vf: {model: igb-vf}\nguests:\n  alice: {}\n" + STEPS,
            4, 3, "a virtual function needs 'of', the igb that it belongs to",
        ),
        (
            "devices:\n  nic: {model: e1000e}\n  vf: {model: igb-vf, of: nic}\n" + ALICE,
            5, 27, "'nic' is no igb among the devices",
        ),
        (
            "devices:\n  vf: {model: igb-vf, of: pf}\n" + ALICE,
            4, 27, "'pf' is no igb among the devices",
        ),
        (
            "devices:\n  pf: {model: igb, plugged: false}\n  vf: {model: igb-vf, of: pf}\n" + ALICE,
            5, 23,
            "virtual functions are made when the steps begin, so they and their physical function are there then",
        ),
        (
            "machine: {kind: bare}\ndevices: {pf: {model: igb}, vf: {model: igb-vf, of: pf}}\n" + PROVOKE.format("vf"),
            4, 49, "on a bare machine a virtual function brings its physical function along",
        ),
        ("guests:\n  alice: {}\nsteps:\n  - start: bob\n", 6, 12, "no guest is called 'bob'"),
        (
            "devices: {nic: {model: igb}}\nguests:\n  alice: {}\nsteps:\n  - start: nic\n",
            7, 12, "'nic' is a device, not a guest",
        ),
        (
            "guests:\n  alice: {}\nsteps:\n  - start: {guest: alice, assigns: [alice]}\n",
            6, 37, "'alice' is a guest, not a device",
        ),
        (
            "guests:\n  alice: {}\nsteps:\n  - start: alice\n  - plant: {canary: c, size: 8KiB, guest: alice}\n",
            7, 24, "a canary in a nested guest has one page of 4KiB",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_guests_is_told_at_its_place(told, text, line, column, message):
    assert (line, column, message) in told(HEAD + text)


# -- what can be done, step by step -----------------------------------------------------------------------------------

DMA = "  - dma: {{device: nic, write: 64, to: {to}}}\n    expect: landed\n"
SEIZED = START + "  - plant: {canary: own, guest: alice}\n  - seize: {device: nic, guest: alice}\n"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (START + START, "guest 'alice' runs already"),
        (START + "  - start: {guest: bob, assigns: [nic]}\n", "guest 'alice' has 'nic' already"),
        ("  - start: {guest: alice, assigns: [nic, nic]}\n", "'nic' is handed over twice"),
        ("  - assign: nic\n" + START, "'nic' is assigned by then; put a 'release' before"),
        (
            "  - start: {guest: alice, assigns: [rogue]}\n",
            "'rogue' (edu) has no driver in a guest's kernel, so none could drive it",
        ),
        ("  - stop: alice\n", "guest 'alice' does not run by then; put a 'start' before"),
        (START + "  - stop: alice\n  - stop: alice\n", "guest 'alice' does not run by then; put a 'start' before"),
        ("  - plant: {canary: c, guest: bob}\n", "guest 'bob' does not run by then; put a 'start' before"),
        (
            START + "  - start: bob\n  - seize: {device: nic, guest: bob}\n",
            "guest 'bob' was not handed 'nic' by then; put it into 'assigns' of its 'start'",
        ),
        (
            "  - start: alice\n  - seize: {device: nic, guest: alice}\n",
            "guest 'alice' was not handed 'nic' by then; put it into 'assigns' of its 'start'",
        ),
        (
            START + "  - stop: alice\n  - translate: {device: nic, guest: alice}\n",
            "guest 'alice' was not handed 'nic' by then; put it into 'assigns' of its 'start'",
        ),
        (
            START + "  - kill: {guest: alice, device: nic}\n  - withdraw: {device: nic, guest: alice}\n",
            "guest 'alice' was not handed 'nic' by then; put it into 'assigns' of its 'start'",
        ),
        (START + "  - assign: nic\n", "guest 'alice' has 'nic' by then"),
        (SEIZED + "  - release: nic\n", "guest 'alice' has 'nic' by then"),
        (
            SEIZED + "  - map: {device: nic, buffer: b, iova: 0x100000, size: 4KiB}\n",
            "guest 'alice' has 'nic' by then",
        ),
        (
            START + "  - plant: {canary: c}\n" + DMA.format(to="c"),
            "'nic' is not assigned to a domain by then; put an 'assign' before",
        ),
        (
            SEIZED + "  - stop: alice\n" + DMA.format(to="own"),
            "'nic' is not assigned to a domain by then; put an 'assign' before",
        ),
        (SEIZED + "  - traffic: {device: nic}\n", "'nic' is assigned by then; put a 'release' to the kernel before"),
        (
            "  - compare: {guest: alice, nics: [soft, nic]}\n",
            "guest 'alice' does not run by then; put a 'start' before",
        ),
        (
            "  - start: alice\n  - compare: {guest: alice, nics: [soft, nic]}\n",
            "guest 'alice' was not handed 'nic' by then; put it into 'assigns' of its 'start'",
        ),
        (START + "  - compare: {guest: alice, nics: [nic, rogue]}\n", "'rogue' (edu) is no NIC"),
        ("  - start: bob\n  - compare: {guest: bob, nics: [soft, soft]}\n", "'soft' is no NIC of guest 'bob'"),
        (
            SEIZED + "  - compare: {guest: alice, nics: [soft, nic]}\n",
            "user space of guest 'alice' drives 'nic' by then",
        ),
    ],
)
def test_what_a_guest_cannot_do_is_told_at_the_step(told, steps, message):
    text = HEAD + GUESTS + DEVICES + "steps:\n" + steps
    last = max(number for number, line in enumerate(text.splitlines(), start=1) if line.startswith("  - "))

    assert (last, message) in [(line, said) for line, _, said in told(text)]


@pytest.mark.parametrize(
    "steps",
    [
        START + "  - stop: alice\n" + START,
        START + "  - stop: alice\n  - start: {guest: bob, assigns: [nic]}\n",
        START + "  - stop: alice\n  - assign: nic\n",
        "  - assign: nic\n  - release: nic\n" + START,
        SEIZED + DMA.format(to="own"),
        START + "  - compare: {guest: alice, nics: [soft, nic]}\n",
        START + "  - kill: {guest: alice, device: nic}\n  - start: {guest: bob, assigns: [nic]}\n",
    ],
)
def test_what_a_guest_can_do_is_not_refused(planned, steps):
    assert planned(HEAD + GUESTS + DEVICES + "steps:\n" + steps)


# -- one NIC and its functions ----------------------------------------------------------------------------------------

SHARED = (
    "devices:\n  pf: {model: igb}\n  lone: {model: igb}\n  vf-a: {model: igb-vf, of: pf}\n"
    "  vf-b: {model: igb-vf, of: pf}\n  vf-c: {model: igb-vf, of: other}\n  other: {model: igb}\n"
    "  rogue: {model: edu}\n"
)
ASSIGNED = "  - assign: vf-a\n"
RESET = "  - reset: {{device: {}, beside: {}}}\n"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (RESET.format("vf-a", "vf-b"), "'vf-a' is not assigned to a domain by then; put an 'assign' before"),
        (
            ASSIGNED + "  - assign: vf-b\n" + RESET.format("vf-a", "vf-b"),
            "'vf-b' is assigned by then; put a 'release' to the kernel before",
        ),
        (ASSIGNED + RESET.format("vf-a", "vf-a"), "'vf-a' cannot be beside itself"),
        (ASSIGNED + RESET.format("vf-a", "vf-c"), "'vf-a' and 'vf-c' are not virtual functions of one NIC"),
        (ASSIGNED + RESET.format("vf-a", "pf"), "'pf' (igb) is no virtual function"),
        ("  - assign: rogue\n" + RESET.format("rogue", "vf-b"), "'rogue' (edu) is no virtual function"),
        (ASSIGNED + RESET.format("vf-a", "rogue"), "'rogue' (edu) is no NIC"),
        ("  - plant: {canary: c, of: lone}\n", "'lone' (igb) has no virtual functions"),
        ("  - plant: {canary: c, of: vf-a}\n", "'vf-a' (igb-vf) has no virtual functions"),
        ("  - plant: {canary: c, of: rogue}\n", "'rogue' (edu) is no NIC"),
        (
            "  - plant: {canary: c, of: pf}\n  - assign: pf\n  - plant: {canary: d, of: pf}\n",
            "'pf' is assigned by then; put a 'release' to the kernel before",
        ),
    ],
)
def test_what_functions_of_a_nic_cannot_do_is_told_at_the_step(told, steps, message):
    text = HEAD + SHARED + "steps:\n" + steps
    last = max(number for number, line in enumerate(text.splitlines(), start=1) if line.startswith("  - "))

    assert (last, message) in [(line, said) for line, _, said in told(text)]


@pytest.mark.parametrize("key", ["guest: alice", "size: 8KiB"])
def test_a_canary_of_a_driver_has_its_place_and_size(told, key):
    text = HEAD + "guests:\n  alice: {}\n" + SHARED + f"steps:\n  - plant: {{canary: c, of: pf, {key}}}\n"

    assert any("is 1 KiB of a receive buffer of the platform's" in said for _, _, said in told(text))


def test_a_canary_of_a_driver_is_no_longer_than_what_is_in_a_frame(told):
    steps = (
        ASSIGNED
        + "  - plant: {canary: c, of: pf}\n  - dma: {device: vf-a, write: 64, to: c+0x3c4}\n    expect: landed\n"
    )

    assert any("'c' has 1024 bytes" in said for _, _, said in told(HEAD + SHARED + "steps:\n" + steps))


def test_what_functions_of_a_nic_can_do_is_not_refused(planned):
    steps = ASSIGNED + RESET.format("vf-a", "vf-b") + "  - plant: {canary: c, of: pf}\n"

    assert planned(HEAD + SHARED + "steps:\n" + steps)


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_a_machine_with_guests_has_their_memory_a_second_processor_and_their_disk(planned):
    [plan] = planned(HEAD + GUESTS + DEVICES + "steps:\n" + START)

    machine = plan.machine
    assert (machine.memory_mib, machine.vcpus, machine.disks) == (1024 + 256 + 512, 2, ("platform",))
    assert (plan.without("no_viommu").machine.disks, len(machine.iommus)) == (("platform",), 1)


def test_a_machine_without_guests_has_none_of_that(planned):
    [plan] = planned(HEAD + DEVICES + "steps:\n  - iommu_groups: {alone: [nic]}\n")

    assert (plan.machine.memory_mib, plan.machine.vcpus, plan.machine.disks, plan.guests) == (512, 1, (), ())


def test_what_the_author_says_of_the_machine_holds(planned):
    [plan] = planned(HEAD + "machine: {memory: 4GiB, vcpus: 3}\n" + GUESTS + DEVICES + "steps:\n" + START)

    assert (plan.machine.memory_mib, plan.machine.vcpus) == (4096, 3)


def test_each_guest_is_planned_with_room_for_all_that_it_could_be_handed(planned):
    [plan] = planned(HEAD + GUESTS + DEVICES + "steps:\n" + START)

    alice, bob = plan.guests
    assert [(guest.name, guest.machine.image, guest.machine.memory_mib) for guest in (alice, bob)] == [
        ("alice", "debian-13", 256),
        ("bob", "debian-12", 512),
    ]
    assert (alice.machine.accelerator, alice.machine.cpu, alice.machine.iommus) == ("kvm", "host", ())
    assert (alice.machine.root_ports, bob.machine.root_ports) == (4, 3)
    assert (alice.machine.wires, bob.machine.wires) == (("soft",), ())
    [soft] = alice.nics
    assert (soft.name, soft.via, soft.bridge, soft.kernel_driver) == ("soft", "up", "br-up", "virtio-pci")


def test_no_guest_has_more_ports_than_a_machine(planned):
    nics = "devices:\n" + "".join(f"  n{number}: {{model: e1000e}}\n" for number in range(MAX_ROOT_PORTS))
    guests = "guests:\n  alice: {nics: {soft: {model: e1000e, via: n0}}}\n"
    [plan] = planned(HEAD + guests + nics + "steps:\n  - start: alice\n")

    assert plan.guests[0].machine.root_ports == MAX_ROOT_PORTS


def test_no_two_nics_have_the_same_address(planned):
    two = "{nics: {%s1: {model: e1000e, via: up}, %s2: {model: virtio-net, via: up}}}"
    guests = f"guests:\n  alice: {two % ('a', 'a')}\n  bob: {two % ('b', 'b')}\n"
    [plan] = planned(HEAD + guests + DEVICES + "steps:\n" + START)

    addresses = [nic.mac for guest in plan.guests for nic in guest.nics]
    addresses += [device.mac for device in plan.devices if device.mac]
    assert len(addresses) == 6
    assert len(set(addresses)) == 6


VIRTUAL = (
    "devices:\n  before: {model: e1000e}\n  pf: {model: igb}\n  vf-a: {model: igb-vf, of: pf}\n"
    "  vf-b: {model: igb-vf, of: pf}\n  after: {model: e1000e}\n"
)


def test_a_virtual_function_takes_no_port_and_is_not_plugged(planned):
    [plan] = planned(HEAD + "guests:\n  alice: {}\n" + VIRTUAL + "steps:\n  - start: {guest: alice, assigns: [vf-b]}\n")

    devices = {device.name: device for device in plan.devices}
    assert {name: device.qdev.get("bus") for name, device in devices.items()} == {
        "before": "rp0",
        "pf": "rp1",
        "vf-a": None,
        "vf-b": None,
        "after": "rp2",
    }
    assert (devices["vf-a"].qdev, devices["vf-b"].qdev) == ({}, {})
    assert [devices[name].physical for name in ("pf", "vf-a", "vf-b")] == [None, "pf", "pf"]
    assert {devices[name].wire for name in ("pf", "vf-a", "vf-b")} == {"wire-pf"}
    assert plan.machine.wires == ("wire-before", "wire-pf", "wire-after")
    assert len({device.mac for device in plan.devices}) == 5


def test_virtual_functions_find_a_port_behind_no_device(planned):
    functions = "".join(f"  vf{number}: {{model: igb-vf, of: pf}}\n" for number in range(7))
    nics = "".join(f"  n{number}: {{model: e1000e}}\n" for number in range(MAX_ROOT_PORTS - 1))
    steps = "steps:\n  - iommu_groups: {alone: [n0]}\n"
    [plan] = planned(HEAD + "devices:\n  pf: {model: igb}\n" + functions + nics + steps)

    assert plan.machine.root_ports == MAX_ROOT_PORTS


def test_a_plan_with_guests_survives_its_file(planned, tmp_path):
    from harness.evidence import write_json
    from harness.plan import read_plan

    [plan] = planned(HEAD + GUESTS + DEVICES + "steps:\n" + START)
    read = read_plan(write_json(tmp_path / "plan.json", plan))

    assert read.guests == plan.guests
    assert replace(read, definition={}, devices=()) == replace(plan, definition={}, devices=())


# -- forged interrupts ------------------------------------------------------------------------------------------------

FORGING = (
    "guests:\n  alice: {kernel_args: [iomem=relaxed]}\ndevices:\n  nic: {model: e1000e}\n  rogue: {model: edu}\n"
    "steps:\n  - assign: rogue\n  - start: {guest: alice, assigns: [nic], msix_exposed: on}\n"
    "  - forge: {device: nic, guest: alice}\n    expect: landed\n"
    "  - forge: {device: nic, guest: alice, victim: rogue}\n    expect: {blocked: {reason: ir-source-id}}\n"
)


def test_a_forged_interrupt_is_proven_by_taking_remapping_away(planned):
    [plan] = planned(HEAD + FORGING + "counter_proof: [intremap_off]\n")

    assert plan.guests[0].machine.kernel_args[-1] == "iomem=relaxed"
    assert "intremap=off" in plan.without("intremap_off").machine.kernel_args


@pytest.mark.parametrize(("text", "message"), [
    (FORGING + "counter_proof: [iommu_off]\n", "'iommu_off' takes no protection from what the steps attack"),
    (FORGING.replace("  - assign: rogue\n", "") + "counter_proof: [intremap_off]\n",
     "'rogue' is not assigned to a domain by then; put an 'assign' before"),
    (FORGING.replace("ir-source-id", "pte-write"), "an interrupt is refused for a reason of its own"),
    (FORGING.replace("alice}", "alice, format: compatibility}"), "its own message is sent as it is"),
    (FORGING.replace(", assigns: [nic]", ""),
     "guest 'alice' was not handed 'nic' by then; put it into 'assigns' of its 'start'"),
    (FORGING.replace("{blocked: {reason: ir-source-id}}", "silent"),
     "nothing tells a refused interrupt that is not reported from one never sent"),
    (FORGING.replace("e1000e", "igb"), "'nic' (igb) is no e1000e"),
    (FORGING.replace("edu", "e1000e"), "'rogue' (e1000e) is no edu"),
    (FORGING.replace(", msix_exposed: on", ""),
     "guest 'alice' does not reach the MSI-X table of 'nic'; start it with msix_exposed: on"),
    (FORGING + "  - stop: alice\n  - start: {guest: alice, assigns: [nic]}\n  - forge: {device: nic, guest: alice}\n"
     "    expect: landed\n", "guest 'alice' does not reach the MSI-X table of 'nic'; start it with msix_exposed: on"),
    (FORGING.replace("{kernel_args: [iomem=relaxed]}", "{}"),
     "the kernel of guest 'alice' needs the argument iomem=relaxed; put it into its kernel_args"),
])  # fmt: skip
def test_what_is_wrong_with_a_forgery_is_told(told, text, message):
    assert message in [found[2] for found in told(HEAD + text)]


def test_remapping_is_not_taken_away_where_nothing_is_forged(told):
    steps = (
        "devices:\n  rogue: {model: edu}\nsteps:\n  - assign: rogue\n"
        "  - map: {device: rogue, buffer: own, iova: 0x100000, size: 4KiB}\n"
        "  - dma: {device: rogue, write: 64, to: own}\n    expect: landed\n  - plant: {canary: victim}\n"
        "  - dma: {device: rogue, write: 64, to: victim}\n    expect: blocked\ncounter_proof: [intremap_off]\n"
    )
    assert "'intremap_off' takes no protection from what the steps attack" in [found[2] for found in told(HEAD + steps)]
