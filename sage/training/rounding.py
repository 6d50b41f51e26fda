"""How float32 masters become the bfloat16 weights that play: to the nearest, or with a fixed dither.

Dither: a weight between two neighbours lo < hi of bfloat16 plays as hi where (w − lo) / (hi − lo) exceeds a
threshold that is drawn once per weight, uniformly. So what plays equals the masters in the mean however small
the steps are, a weight that moves steadily flips once per bfloat16 step, and nothing jitters. The thresholds
are a function of (run seed, name of the parameter, index of the weight): they are not stored, and are the
same on any device, in any number of processes and in a resumed run.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_CHUNK = {"cpu": 1 << 16, "cuda": 1 << 22}
"""Weights rounded at a time: what stays near a processor, and what keeps a GPU busy in 100 MB."""


def _signed(number: int) -> int:
    """The int64 with the bits of a 64-bit number."""
    return number - (1 << 64) if number >= 1 << 63 else number


_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def key_of(seed: int, name: str) -> int:
    """The key of one parameter's thresholds."""
    digest = hashlib.sha256(f"{seed}/dither/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def thresholds(key: int, start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Numbers 0..65535, int32 [count], of the weights `start`, `start` + 1, ... of a parameter.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) of a counter, whose 64 bits serve four weights.
    """
    first, last = start // 4, -(-(start + count) // 4)
    x = torch.arange(first + 1, last + 1, dtype=torch.int64, device=device).mul_(_STEP).add_(key)
    _mix(x, 30).mul_(_FIRST)
    _mix(x, 27).mul_(_SECOND)
    _mix(x, 31)
    return x.view(torch.int16)[start - 4 * first :][:count].to(torch.int32).bitwise_and_(0xFFFF)


def _mix(x: Tensor, bits: int) -> Tensor:
    """x ^ (x >> bits) in place; the shift is a logical one, and torch's keeps the sign."""
    return x.bitwise_xor_((x >> bits).bitwise_and_((1 << (64 - bits)) - 1))


def dithered(weights: Tensor, key: int, start: int = 0) -> Tensor:
    """`weights` (float32) in bfloat16, the first of them being weight `start` of its parameter, row-major."""
    flat = weights.detach().contiguous().view(-1)
    rounded = torch.empty_like(flat, dtype=torch.bfloat16)
    size = _CHUNK.get(flat.device.type, _CHUNK["cuda"])
    for begin in range(0, len(flat), size):
        part = flat[begin : begin + size]
        # bfloat16 is the upper half of float32: what is added to the lower half carries over or does not.
        draws = thresholds(key, start + begin, len(part), part.device)
        bits = draws.add_(part.view(torch.int32)).bitwise_right_shift_(16)
        made = bits.to(torch.int16).view(torch.bfloat16)
        torch.where(made.isfinite(), made, part.to(torch.bfloat16), out=rounded[begin : begin + size])
    return rounded.view(weights.shape)
