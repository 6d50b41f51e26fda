"""How much memory a training needs, and how much there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sage.policy.model import LanguageModel


def training_bytes(lm: LanguageModel) -> int:
    """Bytes of gradient, float32 master (where the weight is none itself) and AdamW's two moments."""
    total = 0
    for p in lm.model.parameters():
        master = 0 if p.element_size() == 4 else 4
        total += p.numel() * (p.element_size() + master + 4 * (2 if master == 0 else 3))
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
