"""Our divergences against TRL's generalized JSD, value and gradient, in float64.

    pip install --no-deps trl && python -m pytest tests/objective/test_trl.py

Skipped where TRL is not installed: nothing else here needs it. `tests/objective/test_divergence.py` has the
same divergences against scipy.
"""

from __future__ import annotations

import os

import pytest
import torch

from sage.objective.divergence.base import JSD, Divergence, ForwardKL, ReverseKL

pytest.importorskip("trl")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytestmark = pytest.mark.filterwarnings("default")  # TRL's own imports warn

# β of TRL's function; at its ends it is forward KL (0) and reverse KL (1), as GKD's paper has it.
CASES: list[tuple[Divergence, float]] = [
    (ForwardKL(name="forward_kl"), 0.0),
    (ReverseKL(name="reverse_kl"), 1.0),
    *((JSD(name="jsd", beta=beta), beta) for beta in (0.1, 0.5, 0.9)),
]


@pytest.mark.parametrize(("kind", "beta"), CASES, ids=lambda case: str(getattr(case, "name", case)))
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_equals_trls_generalized_jsd(kind: Divergence, beta: float, scale: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    random = torch.Generator().manual_seed(0)
    student, teacher = scale * torch.randn(2, 7, 19, generator=random, dtype=torch.float64)
    student.requires_grad_()
    theirs = GKDTrainer.generalized_jsd_loss(student[None], teacher[None], beta=beta, reduction="sum")
    (gradient,) = torch.autograd.grad(theirs, student)
    both = student.detach().log_softmax(-1), teacher.log_softmax(-1)
    value, slope = kind.value_and_slope(*(x.clone() for x in both), torch.zeros(7, dtype=torch.long))
    torch.testing.assert_close(value.sum(), theirs.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, gradient, rtol=1e-9, atol=1e-12)
