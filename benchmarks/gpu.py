"""One GPU at the size of the paper's models: what is right, how fast each part is, and one whole step.

    python benchmarks/gpu.py                     # one 80 GB card, at most 8 minutes; writes gpu.json
    python benchmarks/gpu.py --only decode loss  # single parts
    python benchmarks/gpu.py --small --only turns --turns 16 4 400     # one part, larger
    python benchmarks/gpu.py --small             # every part in small on a CPU (the ordinary tests run this)

Needs no network and nothing but the package: weights are random and made on the device, in the shapes of
Qwen3-0.6B, 1.7B and 8B (`--small`: tiny ones under the same names); the tokenizer is the shipped student's.
Peers (transformers, TRL, Liger) run where they are installed. A part that the package does not have is a row
that says `not built`, one that a card is needed for `needs a card`, and one for which no time was left `no
time left`; no figure is ever made up. What was measured before, and the aims, are those of November 2026 on
an H100 80 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, DynamicCache, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from sage.config.load import load
from sage.config.schema import ModelSettings
from sage.envs.pool import EnvPool
from sage.episode import Decision, Label
from sage.objective.chunked import Chunking, Head, Projected, chunked_divergence
from sage.objective.compiled import Compiled
from sage.objective.divergence.base import ReverseKL
from sage.objective.intervention.base import TurnContext
from sage.policy import rollout
from sage.policy.decoding.answer import Reply, Sampling
from sage.policy.decoding.branches import Branch, Trunk
from sage.policy.decoding.engine import right_engine
from sage.policy.decoding.engines import BuiltName, build_engine, candidates
from sage.policy.decoding.equivalence import engine_error
from sage.policy.decoding.generate import Decoder, answers, reply, stream
from sage.policy.decoding.static import StaticEngine
from sage.policy.models.folder import resolve_path
from sage.policy.models.hidden_states import hidden_states
from sage.policy.models.load import LanguageModel, load_model
from sage.policy.models.shape import shape_of
from sage.policy.prompts import choose_style
from sage.policy.seat import Job
from sage.records.clock import PhaseClock, phase
from sage.records.ledger import WORK
from sage.training import checkpoint
from sage.training.batch import TrainingEpisode, match_models
from sage.training.content import content_of
from sage.training.gradient import Objective, accumulate_gradient
from sage.training.judging import judge_of
from sage.training.memory import fitted, need_of
from sage.training.optimizer import StudentOptimizer
from sage.training.players import training_play
from sage.training.setup import training_settings
from sage.training.speed import peak_of, speed_columns

SECONDS = 480.0
"""Of the whole benchmark."""
MATRIX_RATE, MEMORY_RATE = 790e12, 3.0e12
"""Operations and bytes a second that shares are given of (an H100: a large bf16 product, a copy)."""
SHAPES = {
    "0.6B": (1024, 3072, 28, 16, True),
    "1.7B": (2048, 6144, 28, 16, True),
    "8B": (4096, 12_288, 36, 32, False),
    "small": (32, 64, 2, 4, True),
    "small teacher": (48, 96, 2, 4, False),
}
"""Width, feed-forward, layers, query heads, tied."""


@dataclass
class Row:
    """One line of the table. `before`: the figure of November 2026, `aim`: what is asked for."""

    part: str
    what: str
    value: float | None
    unit: str = ""
    before: str = ""
    aim: str = ""
    note: str = ""

    def line(self) -> str:
        value = "" if self.value is None else f"{self.value:.4g}"
        return (
            f"| {self.part} | {self.what} | {value} {self.unit} | {self.before} | {self.aim} | {self.note} |"
        )


@dataclass
class Bench:
    """Where it runs, and what was found."""

    small: bool
    device: torch.device
    sizes: tuple[int, int, int] | None = None
    """Of the part `turns`: episodes, turns, longest answer."""
    started: float = field(default_factory=time.monotonic)
    rows: list[Row] = field(default_factory=list)
    lms: dict[tuple[str, torch.dtype], LanguageModel] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        return SECONDS - (time.monotonic() - self.started)

    def say(self, part: str, what: str, value: float | None, unit: str = "", **more: str) -> None:
        if self.small and part != "right":  # figures of a card say nothing about a small model on a CPU
            more = {"note": more.get("note", "")}
        row = Row(part, what, value, unit, **more)
        self.rows.append(row)
        print(row.line(), flush=True)

    def lm(self, name: str, dtype: torch.dtype = torch.bfloat16) -> LanguageModel:
        """A random model of that shape; in small, the small one instead."""
        if self.small:
            name = "small teacher" if name == "8B" else "small"
        if (name, dtype) not in self.lms:
            self.lms[name, dtype] = make_lm(name, dtype, self.device, 1536 if self.small else 151_936)
        return self.lms[name, dtype]

    def forget(self) -> None:
        """Give the models' memory back."""
        self.lms.clear()
        if self.cuda:
            torch.cuda.empty_cache()

    def seconds(self, work: Callable[[], Any], repeats: int = 3) -> float:
        """Median wall seconds of some work on the device, after once to warm up."""
        taken = []
        for _ in range(repeats + 1):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken[1:])

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def peak(self, work: Callable[[], Any]) -> float | None:
        """GiB that some work takes beside what is there before it; None on a CPU."""
        if not self.cuda:
            work()
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**30


class Endless(LanguageModel):
    """No token ends an answer, so that all sides decode the same number."""

    @property
    def end_ids(self) -> frozenset[int]:
        return frozenset()


def make_lm(name: str, dtype: torch.dtype, device: torch.device, rows: int) -> LanguageModel:
    width, feed_forward, layers, heads, tied = SHAPES[name]
    tokenizer = AutoTokenizer.from_pretrained(resolve_path("sage://tiny-student"))
    small = rows < 10_000
    config = Qwen3Config(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2 if small else 8,
        head_dim=8 if small else 128,
        max_position_embeddings=32_768,
        tie_word_embeddings=tied,
        initializer_range=0.2 if small else 0.02,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(len(name))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen3ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    return Endless(model, tokenizer, name, "", device)


# Right first -------------------------------------------------------------------------------------------


def correctness(bench: Bench) -> None:
    """Engines against the plain forward, greedy ids, neighbours; loss and gradient against float64."""
    part = "right"
    half, exact = bench.lm("0.6B"), bench.lm("small" if bench.small else "0.6B", torch.float32)
    names: list[BuiltName] = ["static", *(name for name in candidates(half) if name in ("hf", "packed"))]
    for name in names:
        for lm, dtype in ((half, "bf16"), (exact, "f32")):
            report = engine_error(lm, name)
            error = report.typical if report.half else report.difference
            note = "" if report.equal else f"NOT EQUAL: {report.finding()[:80]}"
            bench.say(part, f"engine {name}, {dtype}: logits off the plain forward by", error,
                      aim=f"≤ {report.tolerance:.2g} (rounding)", note=note)  # fmt: skip
    said = {name: _converse(exact, name, range(8)) for name in names}
    same = sum(a == b for a, b in zip(said["static"], said[names[-1]], strict=True))
    bench.say(part, f"greedy ids of static equal those of {names[-1]}, f32", same, "of 8", aim="8")
    for name in names:
        together, alone = _converse(half, name, range(8)), [_converse(half, name, [i])[0] for i in range(8)]
        same = sum(a == b for a, b in zip(together, alone, strict=True))
        bench.say(part, f"answers of {name} equal alone and side by side, bf16", same, "of 8",
                  before="1 to 2 (hf)", aim="8" if name == "static" else "")  # fmt: skip
    _loss_is_right(bench, part)


def _converse(lm: LanguageModel, engine: BuiltName, chosen: Any) -> list[list[int]]:
    """48 tokens of each answer, sampled at temperature 1 (float32: greedy), the prompts of unlike lengths."""
    draw = np.random.default_rng(0)
    prompts = [draw.integers(5, 900, 20 + 37 * i).tolist() for i in range(8)]
    uniforms = draw.random((8, 48))
    chosen = list(chosen)
    decoder = Decoder(lm, 8, engine=engine, draft_tokens=0, rows=len(chosen), room=512)
    sampling = Sampling(0.0 if lm.model.dtype == torch.float32 else 1.0, 1.0, 48)
    mine = [prompts[i] for i in chosen]
    return [r.ids for r in answers(decoder, mine, sampling, uniforms[chosen], [512] * len(chosen))]


def _loss_is_right(bench: Bench, part: str) -> None:
    tokens, vocabulary = (64, 900) if bench.small else (256, 151_936)
    generator = torch.Generator(bench.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=bench.device, generator=generator)

    hidden, head = normal(tokens, 64), normal(vocabulary, 64) * 0.1
    teacher, teacher_head = normal(tokens, 96), normal(vocabulary, 96) * 0.1
    ids = torch.randint(0, vocabulary, (tokens,), device=bench.device, generator=generator)

    def gradient(dtype: torch.dtype) -> tuple[float, Tensor]:
        own = hidden.detach().clone().to(dtype).requires_grad_()
        result = chunked_divergence(
            ReverseKL(name="reverse_kl"),
            own,
            Head(head.to(dtype)),
            Projected(teacher.to(dtype), Head(teacher_head.to(dtype))),
            ids,
            torch.full(
                (tokens,), 1 / tokens, device=bench.device, dtype=torch.promote_types(dtype, torch.float32)
            ),
            vocabulary=vocabulary,
        )
        result.weighted_sum.backward()
        assert own.grad is not None
        return float(result.weighted_sum.detach()), own.grad.double()

    want, slope = gradient(torch.float64)
    for dtype, name, aim in ((torch.float32, "f32", "≤ 1e-5"), (torch.bfloat16, "bf16", "≤ 0.02")):
        loss, got = gradient(dtype)
        bench.say(part, f"loss in {name} against float64, relative", abs(loss / want - 1), aim=aim)
        apart = float((got - slope).norm() / slope.norm())
        bench.say(part, f"its gradient in {name} against float64, relative", apart, aim=aim)


# 1. Decoding -------------------------------------------------------------------------------------------


def decode(bench: Bench) -> None:
    """Milliseconds of one token for many rows that hold many already."""
    before = {"1.7B": "88.9", "0.6B": "51.8"}
    aim = {"1.7B": "≤ 11.5", "0.6B": "≤ 10.5"}
    for size in ("1.7B", "0.6B"):
        rows, held = (4, 256) if bench.small else (64, 2048)
        lm = bench.lm(size)
        shape = shape_of(lm.model.config, lm.model.dtype.itemsize, _count(lm))
        read = shape.weights + rows * held * shape.cached
        what = f"{size}, {rows} rows x {held:,} tokens, a token"
        for name in ("static", "hf"):
            ms = 1e3 * bench.seconds(_token_of(lm, name, rows, held))
            share = f"{read / (ms / 1e3) / MEMORY_RATE:.0%} of the memory rate" if bench.cuda else ""
            more = {"before": before[size]} if name == "hf" else {"aim": aim[size]}
            bench.say("decode", f"{what}: engine {name}", ms, "ms", note=share, **more)
            _free(bench)
        ms = 1e3 * bench.seconds(_token_of_transformers(lm, rows, held))
        bench.say("decode", f"{what}: transformers' forward, DynamicCache", ms, "ms")
        _free(bench)
        if size == "1.7B":
            _prefill(bench, lm)
        bench.forget()
    _attention(bench)


def _token_of(lm: LanguageModel, name: Any, rows: int, held: int) -> Callable[[], Any]:
    """One more token for each row; the rows hold zeros, which take as long as anything else."""
    engine = build_engine(lm, rows, name, room=held + 64)
    engine.extend(slice(0, rows), [[5]] * rows, [1] * rows)

    def token() -> None:
        engine.lengths[:] = [held] * rows
        engine.extend(slice(0, rows), [[5]] * rows, [1] * rows)

    return token


@torch.inference_mode()
def _token_of_transformers(lm: LanguageModel, rows: int, held: int) -> Callable[[], Any]:
    config = lm.model.config
    shape = (rows, config.num_key_value_heads, held, config.head_dim)
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        zeros = torch.zeros(shape, device=lm.device, dtype=lm.model.dtype)
        cache.update(zeros, zeros, layer)
    ids = torch.full((rows, 1), 5, device=lm.device)

    @torch.inference_mode()
    def token() -> None:
        lm.model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache.crop(-1)

    return token


def _prefill(bench: Bench, lm: LanguageModel) -> None:
    rows, length = (2, 128) if bench.small else (8, 2048)
    ids = np.random.default_rng(0).integers(5, 900, (rows, length)).tolist()
    for name, before in (("static", ""), ("hf", "72,000")):
        engine = build_engine(lm, rows, name, room=length + 64)  # type: ignore[arg-type]

        def prompts(engine: Any = engine) -> None:
            engine.lengths[:] = [0] * rows
            engine.extend(slice(0, rows), ids, [1] * rows)

        rate = rows * length / bench.seconds(prompts, 2)
        bench.say(
            "decode", f"1.7B, prompts of {rows} x {length:,}: engine {name}", rate, "tokens/s", before=before
        )
        del engine, prompts
        _free(bench)


def _attention(bench: Bench) -> None:
    """One call for one new token of every row, as the engines make it and as transformers does."""
    rows, held = (4, 256) if bench.small else (64, 2048)
    q, kv = (4, 2) if bench.small else (16, 8)
    width = 8 if bench.small else 128
    make = {"device": bench.device, "dtype": torch.bfloat16}
    query = torch.randn(rows, q, 1, width, **make)  # type: ignore[call-overload]
    keys, values = (torch.randn(rows, kv, held, width, **make) for _ in range(2))  # type: ignore[call-overload]
    mask = torch.ones(rows, 1, 1, held, dtype=torch.bool, device=bench.device)
    attend = torch.nn.functional.scaled_dot_product_attention

    def repeated() -> Tensor:
        k, v = (
            x[:, :, None].expand(rows, kv, q // kv, held, width).reshape(rows, q, held, width)
            for x in (keys, values)
        )
        return attend(query, k, v, attn_mask=mask)

    ms = 1e3 * bench.seconds(lambda: attend(query, keys, values, attn_mask=mask, enable_gqa=True), 10)
    bench.say("decode", f"attention of a token, {rows} rows x {held:,}: enable_gqa", ms, "ms", before="0.254")
    ms = 1e3 * bench.seconds(repeated, 10)
    bench.say("decode", "the same, keys and values repeated per query head", ms, "ms", before="1.63")


# 2. Nobody waits ---------------------------------------------------------------------------------------


class Drawn(Decoder):
    """Answers of 10 to 400 tokens (in small: 2 to 40), drawn by what is asked, whoever asks first."""

    most = 400

    def begin(self, row: int, prompt: list[int], sampling: Any, uniforms_T: Any, room: int) -> None:
        least = max(1, self.most // 40)
        length = int(stream("length", *prompt).integers(least, self.most + 1))
        super().begin(row, prompt, sampling, uniforms_T, min(room, len(prompt) + length))


class TurnByTurn(Drawn):
    """Everybody waits until the longest answer is complete, as it was before."""

    def step(self, shared: Any = None) -> list[tuple[int, Reply]]:
        done = super().step(shared)
        while any(self._work):
            done += super().step()
        return done


def turns(bench: Bench) -> None:
    """Episodes whose answers are of very unlike length, turn by turn and without a barrier."""
    small = (6, 4, 40) if bench.small else (64, 4, 400)
    episodes, count, most = bench.sizes or small
    lm = bench.lm("0.6B", torch.float32 if bench.small else torch.bfloat16)
    if bench.small:
        shipped = load_model(load(["tracking=none"]).student)
        lm = Endless(shipped.model, shipped.tokenizer, shipped.name, "", bench.device)
    config = load(["env.games=generated", "tracking=none"])
    style = choose_style(config.prompt, config.student.path)
    room = 600 + count * (most + 100)
    how = rollout.PlaySettings(
        Sampling(1.0, 1.0, most), style, 0, "gpu", count, room, episodes, draft_tokens=0, room=room
    )
    jobs = [Job(task) for task in config.env.tasks("train")[:episodes]]
    taken: dict[str, list[float]] = {"turn by turn": [], "without a barrier": []}
    tokens: dict[str, Any] = {}
    with EnvPool(config.env.make, 0, 60.0) as pool:
        for _ in range(1 if bench.sizes is None else 3):
            for name, kind in (("turn by turn", TurnByTurn), ("without a barrier", Drawn)):
                with _patched(rollout, "Decoder", kind), _patched(Drawn, "most", most):
                    bench.wait()
                    started = time.process_time() if not bench.cuda else time.perf_counter()
                    played = rollout.play(lm, pool, jobs, how)
                    bench.wait()
                    now = time.process_time() if not bench.cuda else time.perf_counter()
                taken[name].append(now - started)
                tokens[name] = [e.token_ids for e in played]
    said = sum(turn.n_tokens for e in played for turn in e.turns)
    slow, fast = (statistics.median(taken[name]) for name in taken)
    clock = "s" if bench.cuda else "CPU s"
    what = f"{len(jobs)} episodes x {count} turns, answers of {max(1, most // 40)} to {most}"
    bench.say("turns", f"{what} ({said:,} tokens): turn by turn", slow, clock)
    same = sum(a == b for a, b in zip(*tokens.values(), strict=True))
    bench.say(
        "turns", "the same without a barrier", fast, clock, note=f"{same} of {len(jobs)} episodes equal"
    )
    bench.say("turns", "gain", slow / fast, "x", aim="≥ 1.5")


@contextlib.contextmanager
def _patched(where: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(where, name)
    setattr(where, name, value)
    try:
        yield
    finally:
        setattr(where, name, before)


# 3. Memory, 4. the loss, 5. the judge, 6. the student's pass, 7. checkpoints, 8. records -------------------


def memory(bench: Bench) -> None:
    """The plan against what is taken."""
    lm = bench.lm("1.7B")
    shape = shape_of(lm.model.config, lm.model.dtype.itemsize, _count(lm))
    rows, held = (4, 256) if bench.small else (32, 2048)

    def cached() -> None:
        engine = build_engine(lm, rows, "static", room=held)
        engine.extend(slice(0, 1), [[5]], [1])

    planned = rows * held * shape.cached / 2**30
    _against(bench, f"keys and values of {rows} x {held:,}", planned, bench.peak(cached))
    _free(bench)
    tokens = 64 if bench.small else 4096
    planned = shape.activations(tokens) / 2**30
    _against(bench, f"activations of {tokens:,} tokens", planned, bench.peak(lambda: _forward(lm, tokens)))
    lm.model.zero_grad(set_to_none=True)
    _free(bench)
    config = load(["env.games=generated", "tracking=none", "rollout.max_context=8000", "speed.slots=64"])
    teacher = SHAPES["small teacher" if bench.small else "8B"]
    other = shape_of(_teacher_config(teacher), 2)
    found = fitted(shape, other, need_of(config, []), 80 * 2**30)
    what = "episodes of 8,000 tokens side by side on 80 GiB, beside the teacher"
    bench.say("memory", what, found.slots, note=found.summary())


def _against(bench: Bench, what: str, planned: float, measured: float | None) -> None:
    note = "needs a card" if measured is None else f"planned {planned:.3g}: {planned / measured - 1:+.0%}"
    value = planned if measured is None else measured
    kind = "planned" if measured is None else "measured"
    bench.say("memory", f"{what}, {kind}", value, "GiB", aim="within 10 %", note=note)


def _teacher_config(sizes: tuple[int, int, int, int, bool]) -> Qwen3Config:
    width, feed_forward, layers, heads, tied = sizes
    return Qwen3Config(
        vocab_size=151_936, hidden_size=width, intermediate_size=feed_forward, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=min(8, heads), head_dim=128, tie_word_embeddings=tied,
    )  # fmt: skip


def loss(bench: Bench) -> None:
    """Loss and gradient of one batch of student tokens at the whole vocabulary."""
    tokens, vocabulary, own, other = (96, 900, 32, 48) if bench.small else (6_554, 151_936, 2048, 4096)
    make = {"device": bench.device, "dtype": torch.float32 if bench.small else torch.bfloat16}
    torch.manual_seed(0)
    hidden = torch.randn(tokens, own, **make).requires_grad_()  # type: ignore[call-overload]
    head = (0.02 * torch.randn(vocabulary, own, **make)).requires_grad_()  # type: ignore[call-overload]
    teacher = torch.randn(tokens, other, **make)  # type: ignore[call-overload]
    teacher_head = 0.02 * torch.randn(vocabulary, other, **make)  # type: ignore[call-overload]
    ids = torch.randint(0, vocabulary, (tokens,), device=bench.device)
    weight = torch.full((tokens,), 1 / tokens, device=bench.device)

    kind, said = ReverseKL(name="reverse_kl"), list[str]()

    def ours(chunking: Chunking) -> Tensor:
        projected = Projected(teacher, Head(teacher_head))
        return chunked_divergence(
            kind, hidden, Head(head), projected, ids, weight, vocabulary=vocabulary, chunking=chunking
        ).weighted_sum

    def liger() -> Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        fused = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0, weight_soft_loss=1.0, beta=1.0, compiled=bench.cuda, chunk_size=1024
        )
        return torch.as_tensor(fused(hidden, head, teacher, teacher_head, ids))

    def trl() -> Tensor:
        from trl.trainer.distillation_trainer import _chunked_divergence_loss

        ones = torch.ones(1, tokens, device=bench.device)
        return _chunked_divergence_loss(hidden[None], teacher[None], head, teacher_head, ones, beta=1.0)[0]

    def compiled(most: int) -> Chunking:
        backend = "inductor" if bench.cuda else "aot_eager"
        return Chunking(most, Compiled(said.append, rows=most, backend=backend))

    sizes = (16, 48) if bench.small else (512, 1024, 2048)
    sides: dict[str, tuple[Callable[[], Tensor], str, str]] = {
        "ours, 2^23 logits at a time": (partial(ours, Chunking()), "244", ""),
        **{f"ours, {n} tokens at a time": (partial(ours, Chunking(n)), "", "") for n in sizes},
        **{
            f"ours, compiled, {n} tokens at a time": (partial(ours, compiled(n)), "", "≤ 40 ms, +2.2 GiB")
            for n in sizes
        },
        "Liger, compiled": (liger, "47", ""),
        "TRL, chunked": (trl, "59", ""),
    }
    for name, (side, before, aim) in sides.items():

        def step(side: Callable[[], Tensor] = side) -> None:
            hidden.grad = head.grad = None
            side().backward()

        what = f"{tokens:,} tokens at {vocabulary:,}: {name}"
        try:
            peak = bench.peak(step)
            ms = 1e3 * bench.seconds(step)
        except ImportError as error:
            bench.say("loss", what, None, before=before, note=f"not installed ({error.name})")
            continue
        note = "" if peak is None else f"+{peak:.2f} GiB"
        bench.say("loss", what, ms, "ms", before=before, aim=aim, note=" ".join([note, *said]).strip())
        said.clear()


def judge(bench: Bench) -> None:
    """Queries of whole episodes that begin alike (random ids in the proportions of ReAct's), each alone and
    with what they share read once; and questions behind a scoring pass."""
    lm = bench.lm("8B")
    episodes, turns, shared, own = (2, 6, 60, 12) if bench.small else (8, 30, 240, 90)
    ids, spans = _conversations(episodes, turns, bench.small)
    queries = [one[:shared] + [7 + t] * own for one in ids for t in range(turns)]
    name: BuiltName = "static" if bench.small else candidates(lm)[0]
    tokens: dict[bool, int] = {}
    seconds: dict[bool, float] = {}
    said: dict[bool, list[list[int]]] = {False: [], True: []}
    right_engine(lm, name)  # measured here, so that it is not counted below
    for shares in (False, True):
        with _sharing(shares) as count:
            seconds[shares] = bench.seconds(partial(_replied, lm, queries, name, said[shares]), 1)
        tokens[shares] = count[0] // 2  # once to warm up
    what = f"8B, {len(queries)} queries of {episodes} episodes, engine {name}"
    ratio = tokens[False] / tokens[True]
    bench.say("judge", f"{what}: tokens of prompts, alone over shared", ratio, "x", aim="≥ 3")
    same = sum(a == b for a, b in zip(said[False], said[True], strict=True))
    bench.say("judge", f"{what}: replies equal", same, f"of {len(queries)}", aim=str(len(queries)))
    for shares in (False, True):
        bench.say("judge", f"{what}: {'shared' if shares else 'alone'}", seconds[shares], "s")
    _free(bench)
    _trajectory(bench, lm, ids, spans)


def _conversations(episodes: int, turns: int, small: bool) -> tuple[list[list[int]], list[list[int]]]:
    """Random ids of whole episodes, and where each turn ends."""
    draw = np.random.default_rng(0)
    opening, a_turn = (60, 24) if small else (800, 240)
    ids = [draw.integers(5, 900, opening + turns * a_turn).tolist() for _ in range(episodes)]
    return ids, [[opening + (t + 1) * a_turn for t in range(turns)] for _ in ids]


def _replied(lm: LanguageModel, queries: list[list[int]], name: BuiltName, said: list[list[int]]) -> None:
    said[:] = [r.ids for r in reply(lm, queries, 2, batch=32, engine=name, draft_tokens=0)]


@contextlib.contextmanager
def _sharing(shares: bool) -> Iterator[list[int]]:
    """Engines share or not; the number counts the tokens that go through their prompts' forwards."""
    count = [0]
    run: Callable[..., Tensor] = StaticEngine._run

    def counted(engine: StaticEngine, chunk: bool, parts: Any, slot: int) -> Tensor:
        count[0] += sum(len(ids) for *_, ids in parts) if chunk else 0
        return run(engine, chunk, parts, slot)

    with patch.multiple(StaticEngine, _run=counted, shares=shares):
        yield count


def _trajectory(bench: Bench, lm: LanguageModel, ids: list[list[int]], spans: list[list[int]]) -> None:
    """`judge.context=trajectory`: a scoring pass of one episode, and the questions of its turns behind it."""
    answer = 6 if bench.small else 30
    chosen = [[p for end in spans[0] for p in range(end - answer - 1, end - 1)]]
    branches = [Branch(0, end, [9 + t] * 100) for t, end in enumerate(spans[0])]

    def plain() -> Tensor:
        with torch.no_grad():
            return hidden_states(lm, ids[:1], chosen)

    what = f"8B, an episode of {len(ids[0]):,} tokens, {len(branches)} questions of 100"
    alone, trunk = plain(), Trunk(lm, ids[:1], chosen)
    off = float((alone - trunk.hidden_TE).abs().max())
    bench.say("judge", f"{what}: states of the scoring pass off by", off, aim="0")
    bench.say("judge", f"{what}: the scoring pass", bench.seconds(plain, 2), "s")
    keeps = bench.seconds(lambda: Trunk(lm, ids[:1], chosen), 2)
    bench.say("judge", f"{what}: the scoring pass that keeps its cache", keeps, "s")
    asked = bench.seconds(lambda: trunk.replies(branches, 2, None), 2)
    bench.say("judge", f"{what}: the questions behind it", asked, "s")


def student(bench: Bench) -> None:
    """Forward and backward through the backbone: one long sequence, all kept and layers computed again; and
    short episodes, padded and packed."""
    before = {4096: "0.14", 8192: "0.29", 16_384: "0.66"}
    for size in ("1.7B", "0.6B"):
        lm = bench.lm(size)
        for tokens in (64,) if bench.small else (4096, 8192, 16_384):
            ids = np.random.default_rng(0).integers(5, 900, (1, tokens)).tolist()
            taken = [0.0, 0.0]
            for again in (False, True):
                lm.recomputes = again
                seconds, note = _pass(bench, lm, [ids])
                taken[again] = seconds
                how, aim = "all is kept", "≥ 40 %" if size == "1.7B" else ""
                if again:
                    how, aim = "layers computed again", "≤ 1.35 x, +20 GiB" if tokens == 16_384 else ""
                    note = f"{taken[1] / taken[0]:.2f} x the time {note}".strip()
                bench.say("student", f"{size}, one sequence of {tokens:,}, {how}", seconds, "s",
                          before=before.get(tokens, "") if size == "1.7B" and not again else "",
                          aim=aim, note=note)  # fmt: skip
            lm.recomputes = False
        bench.forget()
    _packed(bench)
    built = "attn_implementation" in ModelSettings.model_fields
    bench.say("student", "attn_implementation as a setting", None, note="built" if built else "not built")


def _packed(bench: Bench) -> None:
    """Some 53,000 tokens in short episodes: two at a time in padded rows, and as many as have 8,192 tokens in
    one sequence."""
    lm = bench.lm("0.6B", torch.float32 if bench.small else torch.bfloat16)
    count, most, longest = (6, 120, 40) if bench.small else (160, 8_192, 500)
    draw = np.random.default_rng(0)
    lengths = sorted(draw.integers(longest // 3, longest + 1, count).tolist(), reverse=True)
    rows = [draw.integers(5, 900, n).tolist() for n in lengths]
    packs: list[list[list[int]]] = [[]]
    for row in rows:
        if packs[-1] and sum(map(len, packs[-1])) + len(row) > most:
            packs.append([])
        packs[-1].append(row)
    padded = [rows[i : i + 2] for i in range(0, count, 2)]
    what = f"0.6B, {count} episodes, {sum(lengths):,} tokens"
    gradients = []
    for name, groups in (("two padded rows at a time", padded), (f"packed to {most:,} tokens", packs)):
        lm.packs = groups is packs
        seconds, note = _pass(bench, lm, groups)
        packed = "≥ 25 %" if lm.packs else ""
        bench.say("student", f"{what}, {name}", seconds, "s", before="" if lm.packs else "3.6", aim=packed,
                  note=note)  # fmt: skip
        lm.model.zero_grad(set_to_none=True)
        for group in groups:
            _differentiate(lm, group)
        slopes = (p.grad for p in lm.model.parameters())
        gradients.append(torch.cat([slope.flatten().double() for slope in slopes if slope is not None]))
    lm.packs = False
    apart = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    bench.say("student", "gradient of packed episodes, off that of padded ones by", apart,
              aim="rounding" if bench.cuda else "≤ 1e-5")  # fmt: skip


def _pass(bench: Bench, lm: LanguageModel, groups: list[list[list[int]]]) -> tuple[float, str]:
    """Seconds of forward and backward over every group, and in words their share of the matrix rate and what
    they take."""

    def work() -> None:
        for group in groups:
            _differentiate(lm, group)

    peak, seconds = bench.peak(work), bench.seconds(work, 2)
    lm.model.zero_grad(set_to_none=True)
    _free(bench)
    if not bench.cuda or peak is None:
        return seconds, ""
    operations = sum(_operations(lm, len(row)) for group in groups for row in group)
    return seconds, f"{operations / seconds / MATRIX_RATE:.0%} of the matrix rate, +{peak:.1f} GiB"


def _differentiate(lm: LanguageModel, rows: list[list[int]]) -> None:
    """Adds the gradient of a sum over all tokens."""
    hidden_states(lm, rows, [range(len(row)) for row in rows]).float().square().sum().backward()


def checkpoints(bench: Bench) -> None:
    """What a step waits for where a checkpoint is written in the background (the copy), and the write itself;
    full and weights alone."""
    lm = bench.lm("1.7B")
    config = load(["tracking=none"])
    with tempfile.TemporaryDirectory(dir=None if bench.small else ".") as folder:
        needed = 12 * _count(lm)
        if shutil.disk_usage(folder).free < 1.2 * needed or bench.left < 90:
            bench.say("checkpoints", "", None, note="no room on the disk, or no time left")
            return
        optimizer = StudentOptimizer(lm.model, config.trainer)
        for p in lm.model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        content = content_of(1, lm, optimizer.state_dict())
        bench.wait()
        started = time.perf_counter()
        copy = content.copied()
        bench.say("checkpoints", "1.7B: the copy that a step waits for", time.perf_counter() - started, "s",
                  aim="≤ 10 % of a step")  # fmt: skip
        for kind in ("full", "weights"):
            started = time.perf_counter()
            path = checkpoint.write(Path(folder) / kind, copy, kind)
            seconds = time.perf_counter() - started
            size = sum(p.stat().st_size for p in path.rglob("*")) / 2**30
            bench.say("checkpoints", f"1.7B, {kind}: written beside the training", seconds, "s",
                      note=f"{size:.3g} GiB")  # fmt: skip
            shutil.rmtree(path)


def _forward(lm: LanguageModel, tokens: int) -> None:
    ids = torch.randint(5, 900, (1, tokens), device=lm.device)
    lm.model.base_model(input_ids=ids, use_cache=False).last_hidden_state.float().square().mean().backward()


def _operations(lm: LanguageModel, tokens: int) -> float:
    """Of forward and backward: six for every parameter of the layers, and attention's products, causal."""
    config = lm.model.config
    layers = _count(lm) - lm.model.get_input_embeddings().weight.numel()
    layers -= 0 if config.tie_word_embeddings else lm.model.get_output_embeddings().weight.numel()
    width = config.num_attention_heads * config.head_dim
    return 6 * layers * tokens + 6 * config.num_hidden_layers * width * tokens**2


def _count(lm: LanguageModel) -> int:
    return sum(p.numel() for p in lm.model.parameters())


def _free(bench: Bench) -> None:
    if bench.cuda:
        import gc

        gc.collect()
        torch.cuda.empty_cache()


# One whole step ----------------------------------------------------------------------------------------


def step(bench: Bench) -> None:
    """The paper's setting by phase: play, judge, score, differentiate, step; random models, so nothing is won
    and every answer is as long as it may be."""
    games, count = (3, 3) if bench.small else (64, 30)
    config = load(
        [
            *("env.games=generated", "tracking=none", "prompt.style=react", "method=sage_opd"),
            *(f"trainer.tasks_per_step={games}", f"env.turn_budget={count}", "rollout.max_new_tokens=30"),
            *("rollout.max_context=8192", "speed.micro_batch=1", "speed.draft_tokens=0"),
            *("intervention.max_new_tokens=8", f"speed.slots={games}", "student.dtype=bfloat16"),
        ]
    )
    dtype = torch.float32 if bench.small else torch.bfloat16
    models = match_models(bench.lm("1.7B", dtype), bench.lm("8B", dtype))
    style = choose_style(config.prompt, "hub")
    optimizer = StudentOptimizer(models.student.model, config.trainer)
    tasks = config.env.tasks("train")[:games]
    rules = Objective(config.confidence, config.normalization, config.divergence)
    with ExitStack() as stack:
        pool = stack.enter_context(EnvPool(config.env.make, 0, 60.0))
        settings = training_settings(config, style, models.student)
        play = training_play(config, models, pool, settings)
        clock = stack.enter_context(PhaseClock().running())
        clock.watch(peak_of(bench.device))
        bench.wait()
        started = time.perf_counter()
        with phase("rollout"):
            batch = [TrainingEpisode(episode) for episode in play([Job(task) for task in tasks], count)]
            bench.wait()
        with phase("judge"):
            asked = [TurnContext(p.episode, turn) for p in batch for turn in p.episode.turns]
            judge_of(config, style, models.teacher, stack)(asked)
            bench.wait()
        for p in batch:  # a random student's turns all fail by themselves; here all are trained on
            p.decisions = [Decision(Label.ALWAYS, 1.0) for _ in p.episode.turns]
        optimizer.clear()
        accumulate_gradient(models, rules, batch, micro_batch=config.speed.micro_batch)
        bench.wait()
        with phase("student"):
            optimizer.step()
            bench.wait()
        total = time.perf_counter() - started
        seconds, work = clock.totals(), clock.take_work()
    told = sum(len(p.episode.token_ids) for p in batch)
    said = sum(turn.n_tokens for p in batch for turn in p.episode.turns)
    what = f"1.7B taught by 8B, {len(batch)} episodes x {count} turns"
    bench.say("step", f"{what}: {told:,} tokens, {said:,} of answers", total, "s", aim="120")
    before = {"rollout": "5 to 20 (needed)", "judge": "39", "teacher": "20", "student": "13"}
    row = {f"seconds_{name}": value for name, value in seconds.items()}
    row |= dict.fromkeys(WORK.values(), 0)  # tokens a second are not told here
    shares = speed_columns(row, work, models, config.speed)
    for name in ("rollout", "judge", "teacher", "student"):
        found = [f"{shares[f'speed_peak_{name}'] or 0:.2f} GiB at most"]
        for rate in ("matrix", "memory"):
            if share := shares.get(f"speed_{rate}_{name}"):
                found.append(f"{share:.1%} of the {rate} rate measured")
        bench.say("step", f"of which {name}", seconds.get(name, 0.0), "s", before=before[name],
                  note=", ".join(found))  # fmt: skip


PARTS: dict[str, Callable[[Bench], None]] = {
    "right": correctness,
    "decode": decode,
    "turns": turns,
    "memory": memory,
    "loss": loss,
    "judge": judge,
    "student": student,
    "checkpoints": checkpoints,
    "step": step,
}


def run(
    small: bool, only: list[str], out: Path | None, sizes: tuple[int, int, int] | None = None
) -> list[Row]:
    """The chosen parts, in order; a part that fails is a row that says why."""
    logging.set_verbosity_error()
    cuda = torch.cuda.is_available() and not small
    bench = Bench(small, torch.device("cuda" if cuda else "cpu"), sizes)
    card = torch.cuda.get_device_name() if cuda else f"no card ({platform.processor() or platform.machine()})"
    print(f"{card}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}{', in small' if small else ''}\n")
    print("| part | what | measured | before | aim | note |\n|---|---|---|---|---|---|")
    for name in only:
        if bench.left < 20:
            bench.say(name, "", None, note="no time left")
            continue
        try:
            PARTS[name](bench)
        except Exception as error:
            bench.say(name, "", None, note=f"FAILED: {type(error).__name__}: {str(error)[:120]}")
        bench.forget()
    if out is not None:
        found = {
            "card": card,
            "torch": torch.__version__,
            "small": small,
            "rows": [asdict(r) for r in bench.rows],
        }
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return bench.rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="every part in small, on a CPU")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--turns", nargs=3, type=int, help="episodes, turns, longest answer; three times")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    args = parser.parse_args()
    if not args.small and not torch.cuda.is_available():
        parser.error("there is no GPU here; --small runs every part in small on a CPU.")
    run(args.small, args.only, args.out, tuple(args.turns) if args.turns else None)


if __name__ == "__main__":
    main()
