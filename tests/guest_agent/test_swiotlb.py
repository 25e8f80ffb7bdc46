"""What the kernel's trace says of bounced buffers, in the words of Linux 6.12."""

import swiotlb

LINE = "    <idle>-0       [000] ..s1.    13.215600: swiotlb_bounced: dev_name: {} dma_mask={} dev_addr={} size={} {}\n"

TRACE = "".join(
    (
        "# tracer: nop\n#\n",
        LINE.format("0000:01:00.0", "ffffffff", "13c4d0042", 1522, "NORMAL"),
        LINE.format("0000:01:00.0", "ffffffff", "101a80042", 1214, "NORMAL"),
        LINE.format("0000:02:00.0", "fffffff", "10000000", 64, "FORCE"),
    )
)

STATS = "entries: 3\noverrun: {}\ncommit overrun: 0\nbytes: 300\ndropped events: {}\nread events: 0\n"


def test_bounces_are_told_by_device_with_the_lowest_address():
    assert swiotlb.bounces(TRACE) == {
        "0000:01:00.0": {"count": 2, "mask": 0xFFFFFFFF, "lowest": 0x101A80042, "bytes": 1522 + 1214},
        "0000:02:00.0": {"count": 1, "mask": 0xFFFFFFF, "lowest": 0x10000000, "bytes": 64},
    }


def test_an_empty_trace_tells_none():
    assert swiotlb.bounces("# tracer: nop\n") == {}


def test_overwritten_and_dropped_events_are_lost():
    assert swiotlb.lost_events(STATS.format(0, 0)) == 0
    assert swiotlb.lost_events(STATS.format(2, 3)) == 5
