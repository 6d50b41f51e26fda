"""How much memory a training needs, and how much there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sage.policy.models.load import LanguageModel


def training_bytes(lm: LanguageModel) -> int:
    """Bytes that a step takes beside the weights: gradient, float32 master and its gradient (where the weight
    is no float32 itself), and AdamW's two moments. The copy that the movement is measured against is not
    where the weights are, or small (`sage.training.first_weights`)."""
    total = 0
    for p in lm.model.parameters():
        if not p.requires_grad:
            continue
        size = p.element_size()
        masters = 0 if size == 4 else 2 * 4
        total += p.numel() * (size + masters + 2 * 4)
    return total


def free_bytes(device: torch.device) -> int:
    """Memory that a process may still take on that device."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62  # unknown here: nothing is refused for it


def gib(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"
