"""An adapter's folder as a model: its change is added to the weights of the model that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sage.errors import ModelError, short_reason

INSTALL = "which is not installed here: pip install 'sage-opd[lora]'"
"""How a sentence about a missing peft ends."""


def merge_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder` added to its weights. Raises ModelError where peft is missing
    or the adapter is another model's."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError(f"The adapter {str(folder)!r} needs peft, {INSTALL}.") from error
    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except Exception as error:  # whatever peft makes of files that do not fit
        raise ModelError(
            f"The adapter {str(folder)!r} does not fit its model ({type(error).__name__}: "
            f"{short_reason(error)})."
        ) from error
