"""When the unit learns of what a kernel driver unmaps: of each buffer at once (strict), or of many together (lazy).

Linux' DMA API unmaps a NIC's buffer for each frame. A strict domain (`DMA`) waits for an IOTLB invalidation of just
those pages each time (__iommu_dma_unmap in drivers/iommu/dma-iommu.c, intel_iommu_tlb_sync in
drivers/iommu/intel/iommu.c). A lazy one (`DMA-FQ`) queues them, and has the whole domain forgotten when 256 have come
together or 10 ms have passed (IOVA_DEFAULT_FQ_SIZE, IOVA_DEFAULT_FQ_TIMEOUT in drivers/iommu/dma-iommu.c); until then
the device still reaches what was unmapped.
"""

from __future__ import annotations

from typing import Literal

from harness.invalidations import invalidations, watched
from harness.judgement import StepEvidence
from harness.verdict import Witness, WitnessVerdict

Policy = Literal["strict", "lazy"]


def judge_policy(evidence: StepEvidence, policy: Policy, *, domain_id: int, unmapped: int) -> Witness:
    """Witness by QEMU's trace how the unit was told of at least `unmapped` buffers of the domain with that number.

    In a strict domain no fewer invalidations of selected pages came; in a lazy one not a single one of these, but fewer
    of the whole domain than there were buffers, and at least one. That one came for each unmapping *before* it returned
    is not seen here: the kernel's own unmappings leave no trace of their begin and end.
    """
    if not watched(evidence):
        text = "QEMU's trace of invalidations was not switched on"
        return Witness(name="invalidation", step=evidence.index, verdict=WitnessVerdict.MISSING, evidence=text)
    mine = [one for one in invalidations(evidence) if one.of_domain(domain_id)]
    pages = [one for one in mine if one.selective]
    whole = len(mine) - len(pages)
    right = len(pages) >= unmapped if policy == "strict" else not pages and 0 < whole < unmapped
    return Witness(
        name="invalidation",
        step=evidence.index,
        verdict=WitnessVerdict.CONFIRMS if right else WitnessVerdict.DENIES,
        evidence=f"for at least {unmapped} unmapped buffers the unit was told {len(pages)} times to forget selected "
        f"pages and {whole} times to forget the whole domain",
        refs=tuple(one.ref for one in mine[:3]),
    )
