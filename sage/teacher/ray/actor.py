"""What runs on the cluster: one replica of the teacher. It keeps no state between questions.

So a question that was under way when its process died is asked again of the restarted one, with the same
answer. Nothing is raised to the run: what goes wrong is a `Failed`, also while the model is loaded, because
an actor that fails to begin would be begun again and again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from sage.errors import is_out_of_memory, short_reason
from sage.teacher.ray.identity import FORMAT, Identity, loaded_settings, tokenizer_digest
from sage.teacher.ray.wire import Answered, Failed, Packed, pack


class Replica:
    """A Ray actor's class. settings: plain data of the teacher's settings."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._failed: Failed | None = None
        try:
            self._load(settings)
        except Exception as error:  # the sentence goes to who asks
            self._failed = _failure(error)

    def _load(self, settings: dict[str, Any]) -> None:
        import torch

        from sage.config.schema import TeacherSettings
        from sage.policy.models.hidden_states import check_head, head
        from sage.policy.models.layers import reach
        from sage.policy.models.load import load_model

        asked = TeacherSettings.model_validate(settings)
        assert asked.ray is not None
        device = "cuda" if asked.ray.num_gpus > 0 else "cpu"
        if device == "cpu":
            torch.set_num_threads(max(1, int(asked.ray.num_cpus)))
        model = asked.model_copy(update={"ray": None, "device": device})
        self._lm = load_model(model, role="teacher")
        check_head(self._lm)
        projection = head(self._lm)
        self._identity = Identity(
            format=FORMAT,
            settings=loaded_settings(asked),
            digest=self._lm.digest,
            tokenizer=tokenizer_digest(self._lm.tokenizer),
            reach=reach(self._lm),
            rows=projection.rows,
            width=int(projection.weight_VD.shape[1]),
            bias=projection.bias_V is not None,
            left_out=self._lm.left_out,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=str(self._lm.device),
        )

    def identity(self) -> Identity | Failed:
        """What it is; asked beside its work (`cluster.LOOK`)."""
        return self._failed or self._identity

    def head(self, start: int, stop: int) -> Answered | Failed:
        """Rows of the vocabulary projection: (weight [stop - start, D], bias [stop - start] or None)."""
        from sage.policy.models.hidden_states import head

        def rows() -> tuple[Packed, Packed | None]:
            projection = head(self._lm)
            weight_VD, bias_V = projection.weight_VD, projection.bias_V
            return pack(weight_VD[start:stop]), None if bias_V is None else pack(bias_V[start:stop])

        return self._answer(rows)

    def states(
        self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], dtype: str | None
    ) -> Answered | Failed:
        """hidden_TD of one rectangle (`sage.policy.models.hidden_states`), packed in `dtype`."""
        import torch

        from sage.policy.models.hidden_states import hidden_states

        def read() -> Packed:
            with torch.no_grad():
                return pack(hidden_states(self._lm, sequences, positions), dtype)

        return self._answer(read)

    def reply(
        self, prompts: list[list[int]], max_new_tokens: int, stop: str | None, how: dict[str, Any]
    ) -> Answered | Failed:
        """(ids, text, truncated) of one greedy reply to each prompt; how: batch, engine, draft_tokens."""
        from sage.policy.decoding.generate import reply

        def say() -> list[tuple[list[int], str, bool]]:
            done = reply(self._lm, prompts, max_new_tokens, stop, **how)
            return [(one.ids, one.text, one.truncated) for one in done]

        return self._answer(say)

    def _answer(self, work: Callable[[], object]) -> Answered | Failed:
        if self._failed is not None:
            return self._failed
        try:
            return Answered(self._lm.digest, work())
        except Exception as error:  # whatever a model raises
            failed = _failure(error)
        from sage.policy.models.failures import free_memory

        free_memory()
        return failed


def _failure(error: Exception) -> Failed:
    from sage.errors import ConfigError, ModelError

    if is_out_of_memory(error):
        return Failed("memory", short_reason(error))
    if isinstance(error, ConfigError | ModelError):
        return Failed("refused", str(error))
    return Failed("model", f"{type(error).__name__}: {short_reason(error)}")
