"""Settings of a teacher on a server, and what cannot be asked of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from sage.config.local_path import LocalPath
from sage.config.registry import Settings
from sage.config.server_address import server_address


class ServerSettings(Settings):
    """A server that holds the teacher (docs/guide/teachers.md): where it is, and how it is asked."""

    address: str
    """`http://host:port` of a vLLM or SGLang server. Not a place for a secret: see `key_env`."""
    model: str | None
    """The name under which the server has the model; None takes the only one it has."""
    judge: Literal["completions", "chat"]
    """How the judge is asked: `completions` sends the exact ids of the teacher's own chat template (of
    `teacher.path`), `chat` sends messages and leaves the template to the server."""
    most_likeliest: int = Field(ge=1, le=1_000)
    """Most likeliest tokens that may be asked for at each position (the server's own limit is 20 unless it
    was started with `--max-logprobs`). As many are asked for as the loss and the confidence need; a run that
    needs more is refused."""
    batch: int = Field(ge=1, le=1_000)
    """Sequences in one scoring request."""
    concurrency: int = Field(ge=1, le=1_000)
    """Requests under way at the same time, of this process."""
    deadline_s: float = Field(gt=0, le=86_400)
    """For one attempt at one request, its whole answer included."""
    patience_s: float = Field(ge=0, le=864_000)
    """How long a server that is gone, busy or broken is asked again before the run fails; the same line then
    goes on from the newest checkpoint."""
    wait_s: float = Field(gt=0, le=3_600)
    """Before the second attempt; doubled for each further one up to 10 s, and drawn between half of it and
    all so that many askers do not come back at once."""
    retries: int = Field(ge=0, le=1_000)
    """Further attempts at an answer that is broken off or no JSON, from a server that is there."""
    token_budget: int | None = Field(ge=1, le=10**15)
    """Most tokens that one process sends to the server or may have back; beyond it the run fails and can be
    resumed. None for no limit. `trainer.teacher_budget` is the limit that ends a training as planned."""
    cache: LocalPath | None
    """SQLite file that keeps scores across runs, by model, ids and positions. None keeps none. The judge's
    replies have `launch.judge_cache`."""
    key_env: str | None
    """Environment variable that holds the server's key, sent as a bearer token where it is set. Its value is
    never written."""

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        parts = server_address(address)
        if parts is None or parts.query or parts.fragment:
            raise ValueError(
                "teacher.server.address is no address of a server; it looks like http://host:8000."
            )
        if parts.username or parts.password:
            raise ValueError(
                "teacher.server.address holds a secret before its @, which would be written down; put it"
                " into the environment variable that teacher.server.key_env names."
            )
        return address


def refuse_what_a_server_cannot(
    most: int, needs: Mapping[str, int | None], temperature: float, plays: Mapping[str, bool]
) -> None:
    """Raises ValueError where a run needs more of its teacher than log-probabilities of the likeliest tokens
    and replies to prompts.

    most: likeliest tokens that may be asked for. needs: by choice, how many it has to know (None: all).
    temperature: of the confidence. plays: by setting, whether it has the teacher play.
    """
    ways = "divergence=top_k or sampled_token, confidence=top1, margin or none"
    for what, likeliest in needs.items():
        if likeliest is None:
            raise ValueError(
                f"{what} needs the teacher's whole distribution, and a server gives its likeliest tokens"
                f" alone; take {ways}, or a teacher that is loaded here."
            )
        if likeliest > most:
            raise ValueError(
                f"{what} needs the {likeliest} likeliest tokens, and teacher.server.most_likeliest={most};"
                " lower the one, or raise the other and the server's --max-logprobs."
            )
    if temperature != 1:
        raise ValueError(
            "confidence.teacher_temperature other than 1 needs the teacher's whole distribution, and a"
            " server gives its likeliest tokens alone; set it to 1, or load the teacher here."
        )
    for what, does in plays.items():
        if does:
            raise ValueError(
                f"{what} has the teacher play, and a teacher on a server scores and judges only; load it"
                " here."
            )
