"""Write docs/evidence/model_families.md: for each family of models, is what plays what is trained?

    PYTHONPATH=. python docs/make_families.py     # about a minute; writes the page

Random weights, so nothing is downloaded; the configurations are in tests/families.py.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import warnings
from datetime import date
from pathlib import Path

import torch
import transformers

from sage.errors import ModelError
from sage.policy.decoding.engine import right_engine
from sage.policy.decoding.equivalence import engine_error
from sage.policy.models import plain
from sage.policy.models.hidden_states import check_head
from sage.policy.models.layers import keeps_state, kinds
from sage.policy.models.load import LanguageModel
from tests.families import FAMILIES, family

PAGE = Path(__file__).with_name("evidence") / "model_families.md"

HEAD = """\
# Model families: is what plays what is trained?

**Question:** Does what plays equal what is trained, family by family? · Measured {when}.

Measured by `PYTHONPATH=. python docs/make_families.py`: transformers {transformers}, torch {torch},
float32, one thread, {machine}. One small model of each family with random weights (seed 0) from
transformers' own config class: 4 layers, width 32, windows and chunks of 16 tokens, random attention
sinks where the family has them (`tests/families.py`). No downloaded weights, no games.

*Plays*: three rows of {shortest} to {longest} tokens, fed as an episode feeds them (a first prompt,
then one to three tokens at a time; a row joins late, one rests, one leaves and is replaced; two wrong
guesses behind every piece are taken back, where the engine takes tokens back), against
`model(input_ids)` of each row alone without a cache. *Trains*: the same rows padded into one batch,
hidden states times output layer, against the same. Both give the largest difference of a logit, where
logits reach 1 to 10. *Engine* is what `speed.engine=auto` takes. What is refused is refused before
anything is played, in the words of the row.

| family | class | layers | engine | plays | trains |
|---|---|---|---|---|---|
"""


def row(name: str) -> str:
    """One line of the table."""
    lm = family(name)
    layers = ", ".join(kind.removesuffix("_attention") for kind in kinds(lm.model.config.get_text_config()))
    state = " (running state)" if keeps_state(lm) else ""
    engine, plays = _plays(lm)
    return f"| {name} | `{type(lm.model).__name__}` | {layers}{state} | {engine} | {plays} | {_trains(lm)} |"


def _plays(lm: LanguageModel) -> tuple[str, str]:
    try:
        engine = right_engine(lm)
    except ModelError as error:
        return "none", f"refused: {error}"
    return f"`{engine}`", f"{engine_error(lm, engine).difference:.0e}"


def _trains(lm: LanguageModel) -> str:
    try:
        return f"{check_head(lm).difference:.0e}"
    except ModelError as error:
        return f"refused: {error}"


def when() -> str:
    """Today, and the commit whose code is here."""
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, cwd=PAGE.parent, capture_output=True, text=True, check=True).stdout.strip()
    today = date.today()
    return f"{today.day} {today:%B %Y} with the code of commit `{commit}`"


def main() -> int:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__.partition("+")[0]}
    head = HEAD.format(
        **versions,
        shortest=plain.HEAD + plain.TAIL + 1,
        longest=plain.SHORT,
        machine=f"{platform.machine()}, Python {platform.python_version()}",
        when=when(),
    )
    PAGE.write_text(head + "\n".join(map(row, FAMILIES)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
