"""Decoding by vLLM in this process (`rollout.decoder=vllm`), for models that need a GPU's batching.

Ids go in and ids come out, so what is trained on is what was sampled; vLLM's prefix cache spares the history.
The student's weights are handed over in memory each time a decoder is made. Greedy answers are the other
engines' (to rounding); sampled ones are drawn by vLLM's own sampler, seeded per answer, so a run with this
decoder has an identity of its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from sage.errors import ModelError, reason_of
from sage.policy.decoding.generate import Answer, Reply, Sampling, begin_answers
from sage.policy.models.load import LanguageModel

DEFAULTS = {"gpu_memory_utilization": 0.3, "disable_log_stats": True}
"""Arguments of `vllm.LLM` where nothing else is said: the rest of the GPU belongs to the training step."""

_served: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""vLLM's own copy of each model of this process."""


class VllmDecoder:
    """See `sage.policy.decoding.generate.Decodes`. Raises ModelError where vLLM is missing or refuses the
    model."""

    def __init__(self, lm: LanguageModel, slots: int, options: Mapping[str, Any]) -> None:
        self.lm = lm
        self._llm = _serve(lm, options)
        self._history: list[list[int]] = [[] for _ in range(slots)]
        self._requests = count()

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row's history, its newest id left out as by the other decoders."""
        return [len(ids) for ids in self._history]

    def release(self, row: int, last: int) -> None:
        """Free `row` by giving its place to row `last` (the last one in use)."""
        self._history[row] = self._history[last]
        self._history[last] = []

    def answer(
        self,
        rows: slice,
        prompts: list[list[int]],
        sampling: Sampling,
        uniforms_BT: np.ndarray | None,
        room: list[int],
    ) -> list[Reply]:
        """One answer per row; see `Decoder.answer`. An answer's seed is its first number of `uniforms_BT`."""
        engine = self._llm.llm_engine
        answers = begin_answers(self.lm, sampling, prompts, room)
        waiting: dict[str, Answer] = {}
        for b, (row, prompt) in enumerate(zip(range(len(self._history))[rows], prompts, strict=True)):
            self._history[row] = self._history[row] + prompt
            if answers[b].live:
                name = str(next(self._requests))
                seed = None if uniforms_BT is None else int(uniforms_BT[b, 0] * 2**53)
                waiting[name] = answers[b]
                (request,) = engine.renderer.render_cmpl([{"prompt_token_ids": self._history[row]}])
                engine.add_request(name, request, self._parameters(sampling, answers[b].limit, seed))
        while waiting:
            for output in engine.step():
                answer = waiting.get(output.request_id)
                if answer is None:
                    continue
                # Each step shows the whole answer; what it shows beyond the answer's end is not the answer's.
                for token in output.outputs[0].token_ids[len(answer.ids) :]:
                    if answer.live:
                        answer.add(token)
                if not answer.live or output.finished:
                    del waiting[output.request_id]
                    if not output.finished:
                        engine.abort_request([output.request_id])
        for row, answer in zip(range(len(self._history))[rows], answers, strict=True):
            self._history[row] = self._history[row] + answer.ids[:-1]
        return [answer.reply() for answer in answers]

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


def _serve(lm: LanguageModel, options: Mapping[str, Any]) -> Any:
    """vLLM's copy of the model, with the weights as they are now."""
    # In this process: weights are then handed over by reference, and a stopped run leaves no server behind.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        from vllm import LLM
    except ImportError as error:
        raise ModelError(
            f"rollout.decoder=vllm needs vLLM, which cannot be imported here ({error}); see docs/rollouts.md,"
            " or use rollout.decoder=local."
        ) from error
    llm = _served.get(lm.model)
    if llm is None:
        with tempfile.TemporaryDirectory(prefix="sage-vllm-") as folder:
            lm.model.config.save_pretrained(folder)
            lm.tokenizer.save_pretrained(folder)
            arguments = {"dtype": str(lm.model.dtype).removeprefix("torch."), "seed": 0} | DEFAULTS
            try:
                llm = LLM(folder, load_format="dummy", **(arguments | dict(options)))
            except (ValueError, RuntimeError, TypeError) as error:
                reason = reason_of(error)
                raise ModelError(
                    f"vLLM could not serve {lm.name!r} ({reason}); its arguments are in speed.vllm."
                ) from error
        _served[lm.model] = llm
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(lm.model.state_dict().items())})
    llm.reset_prefix_cache()
    return llm
