"""Two devices on a machine that has one: tensors that say where they are, and refuse to meet.

`Places` watches every torch function. A tensor is where it was made or moved to, by the names `there` and
`elsewhere` of devices that need not exist; what is computed from tensors of one place is at that place. Where
tensors of two places meet in one function it raises, as a GPU would. Indices count too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

HOME = torch.device("cpu")
THERE, ELSEWHERE = torch.device("cuda:0"), torch.device("cuda:1")

_MOVES = {"to", "cpu", "cuda"}
_LOOKS = {"__get__", "__repr__"}


class Mixed(RuntimeError):
    """Tensors of two devices in one function."""


class Places(TorchFunctionMode):
    """Inside it, devices are what tensors say they are."""

    def __init__(self) -> None:
        super().__init__()
        self._place: dict[int, torch.device] = {}
        self._kept: list[Tensor] = []
        """Every labelled tensor, so that no id is used twice."""
        self.calls: Counter[torch.device] = Counter()
        """Functions of tensors at each place."""
        self.crossed: Counter[tuple[str, str]] = Counter()
        """Numbers that moved, by (from, to)."""
        self.largest = 0
        """Most numbers that moved at once."""

    def put(self, thing: Any, place: torch.device) -> None:
        """Say where a tensor, or a module's parameters and buffers, are."""
        tensors = [*thing.parameters(), *thing.buffers()] if isinstance(thing, nn.Module) else [thing]
        for tensor in tensors:
            self._place[id(tensor)] = place
            self._kept.append(tensor)

    def of(self, tensor: Tensor) -> torch.device:
        return self._place.get(id(tensor), HOME)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        given = list(_tensors((args, kwargs)))
        if name == "__get__" and given and func == Tensor.device.__get__:
            return self.of(given[0])
        places = {self.of(t) for t in given}
        if name in _MOVES:
            return self._moved(func, args, kwargs, given[0])
        wanted = kwargs.pop("device", None)
        if len(places) > 1 and name not in _LOOKS:
            where = ", ".join(sorted(str(p) for p in places))
            raise Mixed(f"{name} of tensors on {where}")
        place = torch.device(wanted) if wanted is not None else next(iter(places), HOME)
        result = func(*args, **kwargs)
        self.calls[place] += bool(given)
        for tensor in _tensors(result):
            if place != HOME or id(tensor) in self._place:
                self.put(tensor, place)
        return result

    def _moved(self, func: Any, args: Any, kwargs: Any, tensor: Tensor) -> Tensor:
        def device_of(value: Any) -> torch.device | None:
            if isinstance(value, Tensor):
                return self.of(value)
            return torch.device(value) if isinstance(value, torch.device | str) else None

        asked = [device_of(value) for value in (*args[1:], kwargs.pop("device", None))]
        place = next((device for device in asked if device is not None), self.of(tensor))
        if func is Tensor.cpu:
            place = HOME
        # A tensor in the place of a dtype and device would be asked for its real device.
        rest = [v.dtype if isinstance(v, Tensor) else v for v in args[1:]]
        rest = [value for value in rest if not isinstance(value, torch.device | str)]
        crosses = place != self.of(tensor)
        made = tensor.to(*rest, **(kwargs | {"copy": True})) if crosses else tensor.to(*rest, **kwargs)
        if crosses:
            self.crossed[str(self.of(tensor)), str(place)] += tensor.numel()
            self.largest = max(self.largest, tensor.numel())
        if made is not tensor:
            self.put(made, place)
        return made


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
