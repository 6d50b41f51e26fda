"""Write docs/evidence/paper_scale.md, and the tables of memory and hours of two guides (docs/paper_scale.py).

python docs/make_paper_scale.py           # writes them
python docs/make_paper_scale.py --check   # exit code 1 where one is not what this would write
"""

from __future__ import annotations

import sys

from generated import DOCS, row, with_block, write_or_check
from paper_scale import (
    ANSWER,
    CONTEXT,
    DECODE_S,
    ON_THE_CARD,
    PAIRS,
    READ,
    Step,
    config_of,
    methods_of,
    plan_of,
    replica,
    run_hours,
    shape,
    split,
    step,
)

PAGE = DOCS / "evidence" / "paper_scale.md"
GUIDE = DOCS / "guide" / "real_models.md"
MANY = DOCS / "guide" / "many_gpus.md"
JUDGE_BATCH = 16
"""With Qwen3-32B, as the guide's commands have it."""

_MS = ", ".join(f"{1000 * fast:.1f} to {1000 * slow:.1f} ms" for fast, slow in DECODE_S.values())
_SHARED = "benchmarks.md#judging"

HEAD = f"""\
# The paper's table 1: memory and hours, reckoned

**Question:** What memory and how many hours would the paper's table 1 take? \
· Reckoned 27 November 2026, recorded in commit `527e3c1`.

Written by `python docs/make_paper_scale.py`; a test keeps it current. **No run of this size was made here.**
The memory is what `python -m sage check --memory 80` plans. The hours are arithmetic on speeds that were
measured on one H100 80 GB (November 2026, torch 2.11 for CUDA 13, transformers 5.17, bfloat16, random
weights in Qwen3's shapes). What to type is in [real models](../guide/real_models.md) and
[many GPUs](../guide/many_gpus.md).

## A step

`budget=paper`: 64 games of 30 turns. Counted with Qwen3's tokenizer on ALFWorld's official games (100 games
of each split, played by the expert): an opening of {CONTEXT.opening:,} tokens, {CONTEXT.turn:.0f} tokens a
turn in the longest game, so {round(CONTEXT.opening + 30 * CONTEXT.turn):,} a game. Every game is taken to be
as long as that. An answer (a thought and an action) has {ANSWER[0]} to {ANSWER[1]} tokens.

## Speeds

*Fast* takes the decoding of a sketch: the engine `static` was built after it, and not timed on a card. *Slow*
takes that of the engine `hf`, and a judge that reads each query alone.

| what | measured | taken |
|---|---|---|
| one token for 64 games, 2,048 tokens cached, 0.6B and 1.7B | {_MS} | fast to slow |
| prompts, 0.6B and 1.7B | {READ["Qwen3-0.6B"]:,} and {READ["Qwen3-1.7B"]:,} tokens/s | both |
| Qwen3-8B scores 53,000 tokens | 2.5 s | both; Qwen3-32B slower by its parameters |
| the judge's queries, 1,920 a step | about 530 tokens each | fast: 3.29 times fewer, [shared]({_SHARED}) |
| 1.7B forward and backward, one sequence of 4,096 to 16,384 | 28,000 tokens/s | both, for 0.6B too |
| loss and its gradient, 6,554 tokens | 82 ms | both |

Not counted: games that end early, caches longer than 2,048 tokens, decoding the judge's words, checkpoints,
start-up. For `sft` the teacher plays, and is taken to be as fast as the student.
"""


def gib(number: float) -> str:
    return f"{number / 2**30:.1f}"


def span(fast: float, slow: float) -> str:
    """A fast and a slow estimate, two digits each."""
    one, other = (
        f"{fast:.0f}" if fast >= 9.95 else f"{fast:.1f}",
        f"{slow:.0f}" if slow >= 9.95 else f"{slow:.1f}",
    )
    return one if one == other else f"{one} to {other}"


def of(pair: tuple[str, str]) -> str:
    return " ← ".join(name.removeprefix("Qwen3-") for name in pair)


def study_hours(pair: tuple[str, str], seeds: int) -> tuple[float, float, float]:
    """Hours of all runs one after the other, (fast, slow), and those of the longest."""
    found = [run_hours(*pair, method) for method in methods_of(pair[1])]
    return seeds * sum(f for f, _ in found), seeds * sum(s for _, s in found), max(s for _, s in found)


def memory() -> list[str]:
    """What the plan says of each pair."""
    lines = [
        row(
            [
                "student ← teacher",
                "the teacher",
                "always there, GiB",
                "most at a time, GiB",
                "games side by side",
            ]
        ),
        "|---|---|---|---|---|",
    ]
    for pair in PAIRS:
        for here in (True, False) if pair[1] in ON_THE_CARD else (False,):
            plan = plan_of(*pair, here=here)
            where = "on the same card" if here else "on Ray"
            always = sum(plan.always.values())
            lines.append(row([of(pair), where, gib(always), gib(plan.peak), str(plan.slots)]))
    whole = plan_of("Qwen3-1.7B", "Qwen3-32B", here=True)
    if whole.fits:
        raise ValueError("Qwen3-32B fits beside a student: the page says that it does not.")
    return [
        *lines,
        "",
        "A replica on Ray takes its weights and one micro-batch, or the judge's queries: Qwen3-8B "
        f"{gib(replica('Qwen3-8B', 64))} GiB with `speed.judge_batch=64`, Qwen3-32B "
        f"{gib(replica('Qwen3-32B', JUDGE_BATCH))} GiB with {JUDGE_BATCH} and "
        f"{gib(replica('Qwen3-32B', 64))} with 64. Qwen3-32B beside a student of 1.7B on one card would take "
        f"{gib(whole.peak)} GiB: `check` refuses it.",
    ]


def steps() -> list[str]:
    """Seconds of a step of sage_opd."""
    lines = [row(["student ← teacher", *Step.__dataclass_fields__, "step"]), "|---|---|---|---|---|---|"]
    for pair in PAIRS:
        slots = plan_of(*pair, here=pair[1] in ON_THE_CARD).slots
        fast, slow = step(*pair, slots, config_of("method=sage_opd"))
        cells = [span(getattr(fast, name), getattr(slow, name)) for name in Step.__dataclass_fields__]
        lines.append(row([of(pair), *cells, span(fast.whole, slow.whole)]))
    return lines


def runs() -> list[str]:
    """Hours of each method."""
    names = methods_of("Qwen3-8B")
    lines = [row(["student ← teacher", *(f"`{name}`" for name in names)]), "|---" * (len(names) + 1) + "|"]
    for pair in PAIRS:
        kept = methods_of(pair[1])
        lines.append(row([of(pair), *(span(*run_hours(*pair, n)) if n in kept else "–" for n in names)]))
    return lines


def on(pair: tuple[str, str], gpus: int) -> str:
    """Hours of the study's five seeds on so many GPUs."""
    apiece = 1 if pair[1] in ON_THE_CARD else 2
    if gpus < apiece:
        return "does not fit"
    fast, slow, longest = study_hours(pair, 5)
    places = gpus // apiece
    return span(fast / places, max(slow / places, longest))


def guide() -> list[str]:
    """The table of real_models.md."""
    lines = [
        row(
            [
                "student ← teacher",
                "a run takes",
                "of 80 GiB, most",
                "a `sage_opd` run, h",
                "the study on 1 GPU, h",
                "2",
                "8",
            ]
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for pair in PAIRS:
        here = pair[1] in ON_THE_CARD
        most = gib(plan_of(*pair, here=here).peak)
        if not here:
            most += f", teacher {gib(replica(pair[1], JUDGE_BATCH))}"
        takes = "1 GPU" if here else "2 GPUs"
        hours = span(*run_hours(*pair, "sage_opd"))
        lines.append(row([of(pair), takes, most, hours, on(pair, 1), on(pair, 2), on(pair, 8)]))
    return lines


def many() -> list[str]:
    """The table of many_gpus.md: Qwen3-1.7B and 8B with games of at most 8,192 tokens."""
    lines = [
        row(["GPUs", "for the run", "for the teacher", "always there, GiB", "most at a time, GiB"]),
        "|---|---|---|---|---|",
    ]
    for gpus, run, teacher in (("1", 1, 0), ("2", 1, 1), ("4", 3, 1), ("8", 6, 2), ("2 × 8", 12, 4)):
        plan = split(run, here=not teacher)
        cells = [gib(sum(plan.always.values())), gib(plan.peak)]
        lines.append(row([gpus, str(run), str(teacher or "the same"), *cells]))
    return [
        *lines,
        "",
        f"The teacher's GPU holds its weights ({gib(shape('Qwen3-8B').weights)} GiB) and one micro-batch.",
    ]


def page() -> str:
    """The page of evidence."""
    parts = [
        HEAD,
        "## Memory of a card of 80 GiB\n",
        *memory(),
        "\n## Seconds of a step of `sage_opd`\n",
        *steps(),
        "\n## Hours of a run\n",
        "56 steps, and 274 games before and after; `base` is evaluated once. With Qwen3-32B each run has a",
        "replica of its own.\n",
        *runs(),
    ]
    return "\n".join(parts) + "\n"


def main() -> int:
    texts = {PAGE: page(), GUIDE: with_block(GUIDE, guide()), MANY: with_block(MANY, many())}
    return max(write_or_check(path, text) for path, text in texts.items())


if __name__ == "__main__":
    sys.exit(main())
