"""How to run it: `python -m pretrain.ship <model directory> sage/assets/<name>`.

Copies a trained tiny model into the package as float16 (half the size; loaded as float32 again) with its
tokenizer. What the shipped files measure is measured on them, not on the float32 originals.
"""

from __future__ import annotations

import sys
from pathlib import Path


def ship(source: Path, target: Path) -> None:
    """Write `source` to `target`; everything but the card there is replaced."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).to(torch.float16)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


if __name__ == "__main__":
    ship(Path(sys.argv[1]), Path(sys.argv[2]))
