"""Where questions come from, as settings: the fictional encyclopedia, or the paper's seven sets."""

from __future__ import annotations

from pydantic import Field, model_validator

from sage.config.registry import Settings


class GeneratedSettings(Settings):
    """The fictional encyclopedia and its questions; made once per combination into a cache."""

    seed: int = Field(ge=0, le=2**63 - 1)
    """Of the generator; apart from the run's seed: runs with different seeds play the same questions."""
    train: int = Field(ge=3, le=1_000_000)
    """Training questions, a third each over one, two and three facts."""
    evaluation: int = Field(ge=1, le=1_000_000)
    """Questions in each evaluation set (`valid_1hop` to `test_3hop`)."""
    passages: int = Field(ge=50, le=5000)
    """Passages about validation entities; as many about test ones, three times as many about train ones."""

    @model_validator(mode="after")
    def _enough_facts(self) -> GeneratedSettings:
        # A passage states three facts, and a question over one fact asks for one of them.
        if self.evaluation > 2 * self.passages or self.train > 18 * self.passages:
            raise ValueError(
                f"env.generated.passages={self.passages} is too small for {self.train} training questions "
                f"and evaluation sets of {self.evaluation}; "
                f"it allows {18 * self.passages} and {2 * self.passages}."
            )
        return self


class OfficialSettings(Settings):
    """The seven sets of the paper, in the format of the FlashRAG data sets; read by `datasets`."""

    dataset: str
    """Name on the hub, used unless `env.data` names a local copy."""
    revision: str | None
    """Hub revision; None takes the default branch."""
    seed: int = Field(ge=0, le=2**63 - 1)
    """Draws the training sample and the capped evaluation sets."""
    train_sets: list[str] = Field(min_length=1)
    """Their train splits together are what the training sample is drawn from."""
    train: int = Field(ge=1, le=1_000_000)
    """Size of the training sample."""
    cap: int = Field(ge=1, le=10_000_000)
    """At most this many questions of each evaluation set."""
