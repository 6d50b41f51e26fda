"""Decoding by vLLM in this process (`rollout.decoder=vllm`), for models that need a GPU's batching.

Ids go in and ids come out, so what is trained on is what was sampled; vLLM's prefix cache spares the history.
The student's weights are handed over in memory each time a decoder is made. Greedy answers are the other
engines' (to rounding); sampled ones are drawn by vLLM's own sampler, seeded per answer, so a run with this
decoder has an identity of its own. Each process of a run has a vLLM of its own, on its own device. With
`speed.vllm.enable_sleep_mode=true` that gives its memory back (weights and keys and values) between rollouts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from sage.errors import ModelError, reason_of
from sage.policy.decoding.answer import Answer, Reply, Sampling, stop_pattern
from sage.policy.models.load import LanguageModel
from sage.policy.models.lora import merged
from sage.records.activity import did, doing

DEFAULTS = {"gpu_memory_utilization": 0.3, "disable_log_stats": True}
"""Arguments of `vllm.LLM` where nothing else is said: the rest of the GPU belongs to the training step."""

_served: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""vLLM's own copy of each model of this process."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A row's answer, and its name in vLLM."""

    name: str
    answer: Answer


class VllmDecoder:
    """See `sage.policy.decoding.generate.Decodes`. Raises ModelError where vLLM is missing or refuses the
    model."""

    def __init__(self, lm: LanguageModel, slots: int, options: Mapping[str, Any]) -> None:
        self.lm = lm
        with doing("starting vLLM, or handing it the weights"):
            self._llm = _serve(lm, options)
        self._history: list[list[int]] = [[] for _ in range(slots)]
        self._numbers = count()
        self._asked: list[_Request | None] = [None] * slots
        """By row."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row's history, its newest id left out as by the other decoders."""
        return [len(ids) for ids in self._history]

    def release(self, row: int, last: int) -> None:
        """Free `row` by giving its place to row `last` (the last one in use)."""
        self._history[row], self._asked[row] = self._history[last], self._asked[last]
        self._history[last], self._asked[last] = [], None

    def begin(
        self, row: int, prompt: list[int], sampling: Sampling, uniforms_T: np.ndarray | None, room: int
    ) -> None:
        """See `Decodes.begin`. An answer's seed is its first number of `uniforms_T`."""
        limit = min(sampling.max_new_tokens, room - len(prompt))
        answer = Answer(self.lm.tokenizer, self.lm.end_ids, stop_pattern(sampling), limit)
        self._history[row] = self._history[row] + prompt
        request = self._asked[row] = _Request(str(next(self._numbers)), answer)
        if answer.live:
            engine = self._llm.llm_engine
            seed = None if uniforms_T is None else int(uniforms_T[0] * 2**53)
            (rendered,) = engine.renderer.render_cmpl([{"prompt_token_ids": self._history[row]}])
            engine.add_request(request.name, rendered, self._parameters(sampling, limit, seed))

    def step(self) -> list[tuple[int, Reply]]:
        """See `Decodes.step`."""
        engine = self._llm.llm_engine
        by_name = {request.name: request for request in self._asked if request and request.answer.live}
        for output in engine.step() if by_name else ():
            if output.request_id not in by_name:
                continue
            answer = by_name[output.request_id].answer
            known = len(answer.ids)
            # Each step shows the whole answer; what it shows beyond the answer's end is not the answer's.
            for token in output.outputs[0].token_ids[len(answer.ids) :]:
                if answer.live:
                    answer.add(token)
            did(tokens=len(answer.ids) - known)
            if output.finished:
                answer.live = False
            elif not answer.live:
                engine.abort_request([output.request_id])
        done: list[tuple[int, Reply]] = []
        for row, request in enumerate(self._asked):
            if request is not None and not request.answer.live:
                self._asked[row] = None
                self._history[row] = self._history[row] + request.answer.ids[:-1]
                done.append((row, request.answer.reply()))
        return done

    def _allowed(self) -> list[int] | None:
        """The tokenizer's ids, where the model has rows beyond them."""
        rows = self.lm.model.get_output_embeddings().weight.shape[0]
        return list(range(self.lm.vocabulary)) if rows > self.lm.vocabulary else None

    def _parameters(self, sampling: Sampling, limit: int, seed: int | None) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=limit,
            seed=seed,
            stop_token_ids=sorted(self.lm.end_ids),
            allowed_token_ids=self._allowed(),
            ignore_eos=True,  # the end tokens are this model's, whatever vLLM reads from its files
            detokenize=False,
        )


def rest(lm: LanguageModel) -> None:
    """Have vLLM's copy of the model, where there is one that may sleep, give its memory back until it is
    served again: its weights are then handed over anew."""
    llm = _served.get(lm.model)
    if llm is not None and _sleeps(llm) and not llm.llm_engine.is_sleeping():
        llm.sleep(level=2)


def _sleeps(llm: Any) -> bool:
    return bool(llm.llm_engine.model_config.enable_sleep_mode)


def _apart() -> dict[str, Any]:
    """What tells vLLM that it is one of several, each by itself, where this process is one of a run's."""
    import torch.distributed as dist

    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return {"distributed_executor_backend": "external_launcher"} if several else {}


def _serve(lm: LanguageModel, options: Mapping[str, Any]) -> Any:
    """vLLM's copy of the model, with the weights as they are now."""
    # In this process: weights are then handed over by reference, and a stopped run leaves no server behind.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        from vllm import LLM
    except ImportError as error:
        raise ModelError(
            f"rollout.decoder=vllm needs vLLM, which cannot be imported here ({error}); see"
            " docs/reference/rollouts.md, or use rollout.decoder=local."
        ) from error
    llm = _served.get(lm.model)
    if llm is None:
        with tempfile.TemporaryDirectory(prefix="sage-vllm-") as folder:
            lm.model.config.save_pretrained(folder)
            lm.tokenizer.save_pretrained(folder)
            arguments = {"dtype": str(lm.model.dtype).removeprefix("torch."), "seed": 0} | DEFAULTS | _apart()
            try:
                llm = LLM(folder, load_format="dummy", **(arguments | dict(options)))
            except (ValueError, RuntimeError, TypeError) as error:
                reason = reason_of(error)
                raise ModelError(
                    f"vLLM could not serve {lm.name!r} ({reason}); its arguments are in speed.vllm."
                ) from error
        _served[lm.model] = llm
    asleep = _sleeps(llm) and llm.llm_engine.is_sleeping()
    if asleep:
        llm.wake_up(tags=["weights"])
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(merged(lm.model).items())})
    if asleep:
        llm.wake_up(tags=["kv_cache"])
    llm.reset_prefix_cache()
    return llm
