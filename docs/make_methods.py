"""Write docs/reference/methods.md from the presets in conf/ and the docstrings of their components.

    python docs/make_methods.py           # writes the page
    python docs/make_methods.py --check   # exit code 1 where the page is not what this would write
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generated import DOCS, inline, write_or_check

from sage.config.components import GROUPS, conf_dir, register_components
from sage.config.load import load
from sage.config.registry import Component

if TYPE_CHECKING:
    from sage.config.schema import RunConfig

PAGE = DOCS / "reference" / "methods.md"
OPEN = PAGE.with_name("methods_open.md")
PARTS = ("intervention", "confidence", "normalization", "divergence", "curriculum")
ORDER = (
    *("base", "sft", "sft_expert", "opd", "opd_two_rollouts"),
    *("entropy_aware_opd", "entropy_aware_opd_original"),
    *("tcod_f2b", "tcod_b2f"),
    *("intervention_only", "no_norm", "sage_opd"),
    *("random_intervention", "inverted_intervention", "oracle_intervention", "feedback_only"),
    *("matched_scale", "shuffled_confidence"),
)
"""The paper's own, then the controls; what is not named here follows by name."""

HEAD = """\
# Methods: every preset and every part, exactly

Written by `python docs/make_methods.py` from `conf/` and the code; a test keeps it current. Change those.

## The loop that all presets share

    for each optimizer step n:
        play episodes, the turns that `curriculum` says  -> turns (h_t, a_t, o_{t+1})   by `rollout.player`
        for each turn:      i_t = intervention(turn)     may ask the teacher once
        one teacher pass:   c   = confidence(teacher's distributions at the turn's tokens)
        s = i_t c           per token
        Z = normalization(sums of s over the whole optimizer batch)
        L = (1/N) sum over all student tokens of  Z s D(student, teacher)
        with `rollout.demonstration`:  L = L + weight * mean of -log student over tokens of won demonstrations
        one AdamW step; none where every s is 0
        stop at `trainer.steps`, or once `trainer.teacher_budget` tokens have gone through the teacher

A preset is a choice for each of the five parts and, for some, who plays and how often. Any part can be
changed by itself on top of it: `python -m sage method=sage_opd confidence=margin`. Under each preset stand
its settings, its loss with the factors that are 1 left out, and what its parts do.
"""


def page() -> str:
    """The whole page."""
    register_components()
    names = [path.stem for path in (conf_dir() / "method").glob("*.yaml")]
    presets = [n for n in ORDER if n in names] + sorted(set(names) - set(ORDER))
    return "\n".join([HEAD, *_table(presets), *map(_preset, presets), *_groups(), OPEN.read_text("utf-8")])


def _table(presets: list[str]) -> list[str]:
    head = f"| preset | {' | '.join(PARTS)} | played by |"
    lines = ["## Presets", "", head, f"|{'---|' * (len(PARTS) + 2)}"]
    for name in presets:
        config = load([f"method={name}"])
        chosen = [_short(getattr(config, part)) for part in PARTS]
        player = config.rollout.player + (
            f", {config.rollout.episodes_per_task} per task" if config.rollout.episodes_per_task > 1 else ""
        )
        lines.append(f"| `{name}` | {' | '.join(chosen)} | {player} |")
    return [*lines, ""]


def _short(part: Component) -> str:
    inner = getattr(part, "rule", None)
    return part.name + (f"({inner.name})" if inner is not None else "")


def _preset(name: str) -> str:
    comments = _comments(conf_dir() / "method" / f"{name}.yaml")
    config = load([f"method={name}"])
    lines = [f"### `{name}`", "", *comments, "", "```yaml"]
    for part in PARTS:
        lines.append(f"{part}: {inline(getattr(config, part).model_dump())}")
    if config.rollout != load([]).rollout:
        played = {key: getattr(config.rollout, key) for key in ("player", "episodes_per_task")}
        if config.rollout.demonstration.player != "none":
            played["demonstration"] = config.rollout.demonstration.model_dump()
        lines.append(f"rollout: {inline(played)}")
    lines += ["```", "", "```text"]
    if config.task == "evaluate":
        lines.append("no training")
    else:
        lines.append(f"L      {_equation(config)}")
        lines += [f"{symbol} {_first(type(getattr(config, part)))}" for part, symbol in _SYMBOLS]
    return "\n".join([*lines, "```", ""])


def _equation(config: RunConfig) -> str:
    """The loss, with the factors that are 1 left out."""
    factors = [
        "Z" if config.normalization.name != "none" else "",
        "i_t" if config.intervention.name != "always" and not config.normalization.flat else "",
        "c" if config.confidence.name != "none" and not config.normalization.flat else "",
        "D",
    ]
    loss = "1/N Σ_t Σ_j " + " ".join(filter(None, factors))
    shown = config.rollout.demonstration
    if shown.player != "none":
        loss += f" + {shown.weight:g} mean(−log p) over won episodes of the {shown.player}"
    return loss


_SYMBOLS = (
    ("curriculum", "turns "),
    ("intervention", "i_t   "),
    ("confidence", "c     "),
    ("normalization", "Z     "),
    ("divergence", "D     "),
)


def _groups() -> list[str]:
    lines = ["## The parts", ""]
    for part in PARTS:
        lines += [f"### {part}", ""]
        for name in GROUPS[part].names():
            option = conf_dir() / part / f"{name}.yaml"
            kind = GROUPS[part].get(name)
            lines += [f"**`{part}={name}`**", "", inspect.cleandoc(kind.__doc__ or ""), ""]
            built = getattr(load([f"{part}={name}"]), part)
            for field, info in kind.model_fields.items():
                if field == "name":
                    continue
                text = re.sub(r"\s+", " ", info.description or "").strip()
                value = getattr(built, field)
                value = _short(value) if isinstance(value, Component) else inline(_plain(value))
                lines.append(f"- `{field}: {value}`" + (f" {text}" if text else ""))
            if len(kind.model_fields) > 1:
                lines.append("")
            assert option.exists()
    return lines


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value


def _first(kind: type) -> str:
    """The first paragraph of a docstring, in one line."""
    return re.sub(r"\s+", " ", inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]).strip()


def _comments(path: Path) -> list[str]:
    lines = path.read_text("utf-8").splitlines()
    return [line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line]


def main() -> int:
    return write_or_check(PAGE, page())


if __name__ == "__main__":
    sys.exit(main())
