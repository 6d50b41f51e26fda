"""Questions that branch off conversations which were read once: each sees its conversation up to a point, and
itself.

    trunk = Trunk(lm, sequences, positions)        # one forward; trunk.hidden_TE is `hidden_states`'s
    replies = trunk.replies([Branch(row, end, ids), ...], max_new_tokens, stop)

Invariant: a reply is the one to `sequences[row][:end] + ids` read alone, to rounding. Nothing of the trunk is
copied or read again: all branches of a conversation stand in one row behind it, kept apart by their masks and
at the positions that they would have. What is read of the trunk does not depend on the branches.

Shape suffixes: B conversations, T chosen positions, E width, Q new tokens of a row, K cached, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sage.errors import ModelError
from sage.policy.decoding.answer import Answer, Reply, Sampling, stop_pattern
from sage.policy.decoding.generate import sample
from sage.policy.decoding.masks import Masks
from sage.policy.models.hidden_states import hidden_states
from sage.policy.models.layers import keeps_state, reach, steady_length
from sage.policy.models.load import LanguageModel

TRUNK, PAD = -1, -2
"""Owners of cached tokens that belong to no branch."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A question of `ids` to the first `end` tokens of conversation `row`."""

    row: int
    end: int
    ids: list[int]


def can_branch(lm: LanguageModel) -> bool:
    """Whether a model's attention can be kept apart by a mask of ours: no running state, no frequencies that
    depend on the longest row, and masks that are known here."""
    if keeps_state(lm) or steady_length(lm) is not None:
        return False
    try:
        Masks(lm.model.config.get_text_config(), lm.model.dtype)
    except ModelError:
        return False
    return True


class Trunk:
    """Conversations of a model that `can_branch`, read up to the last of `positions` of each, which
    `hidden_states` chooses."""

    @torch.no_grad()
    def __init__(
        self, lm: LanguageModel, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> None:
        from transformers import DynamicCache

        self.lm, self._sequences = lm, sequences
        self._masks = Masks(lm.model.config.get_text_config(), lm.model.dtype)
        self._read = [max(chosen, default=-1) + 1 for chosen in positions]
        # Without a config every layer keeps all it has seen; windows are the masks' business.
        self._cache = DynamicCache()
        self.hidden_TE = hidden_states(lm, sequences, positions, self._cache)
        width = max(self._read)
        rows = len(self._read)
        # Of each cached token: its position, and the branch that it belongs to.
        self._position_BK = np.tile(np.arange(width), (rows, 1))
        self._owner_BK = np.where(self._position_BK < np.asarray(self._read)[:, None], TRUNK, PAD)

    @torch.inference_mode()
    def replies(self, branches: Sequence[Branch], max_new_tokens: int, stop: str | None) -> list[Reply]:
        """One greedy reply to each; the branches are forgotten afterwards."""
        how = Sampling(0.0, 1.0, max_new_tokens, stop)
        most = reach(self.lm) or 1 << 30
        answers = [
            Answer(self.lm.tokenizer, self.lm.end_ids, stop_pattern(how), min(max_new_tokens, most - n))
            for n in (branch.end + len(branch.ids) for branch in branches)
        ]
        feed = {
            number: [*self._sequences[branch.row][self._read[branch.row] : branch.end], *branch.ids]
            for number, branch in enumerate(branches)
            if answers[number].live
        }
        fed = [min(self._read[branch.row], branch.end) for branch in branches]
        kept = self._position_BK, self._owner_BK
        length = kept[0].shape[1]
        try:
            while feed:
                logits_NV = self._forward(branches, feed, fed)
                tokens = sample(logits_NV[:, : self.lm.vocabulary], how, None)
                for number, token in zip(list(feed), tokens, strict=True):
                    fed[number] += len(feed.pop(number))
                    answers[number].add(token)
                    if answers[number].live:
                        feed[number] = [token]
        finally:
            added = self._position_BK.shape[1] - length
            self._position_BK, self._owner_BK = kept
            if added:
                self._cache.crop(-added)
        return [answer.reply() for answer in answers]

    def _forward(self, branches: Sequence[Branch], feed: dict[int, list[int]], fed: Sequence[int]) -> Tensor:
        """Logits [N, V] after the last token of each branch that is fed, in the order of `feed`."""
        rows = len(self._read)
        columns = [0] * rows
        places: dict[int, tuple[int, int]] = {}
        for number, ids in feed.items():
            row = branches[number].row
            places[number] = (row, columns[row])
            columns[row] += len(ids)
        shape = (rows, max(columns))
        ids_BQ = np.full(shape, self.lm.pad_id)
        position_BQ, owner_BQ, end_BQ = np.zeros(shape, int), np.full(shape, PAD), np.ones(shape, int)
        for number, (row, first) in places.items():
            here = slice(first, first + len(feed[number]))
            ids_BQ[row, here] = feed[number]
            position_BQ[row, here] = np.arange(fed[number], fed[number] + len(feed[number]))
            owner_BQ[row, here] = number
            end_BQ[row, here] = branches[number].end
        self._position_BK = np.concatenate([self._position_BK, position_BQ], axis=1)
        self._owner_BK = np.concatenate([self._owner_BK, owner_BQ], axis=1)
        mask = self._mask(position_BQ, owner_BQ, end_BQ)
        last = sorted({first + len(feed[number]) - 1 for number, (_, first) in places.items()})
        device = self.lm.device
        output = self.lm.model(
            input_ids=torch.from_numpy(ids_BQ).to(device),
            attention_mask=mask,
            position_ids=torch.from_numpy(position_BQ).to(device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=torch.tensor(last, device=device),
        )
        found = [(row, last.index(first + len(feed[n]) - 1)) for n, (row, first) in places.items()]
        row_N, column_N = (torch.tensor(one, device=device) for one in zip(*found, strict=True))
        logits_NV: Tensor = output.logits[row_N, column_N].float()
        return logits_NV

    def _mask(
        self, position_BQ: np.ndarray, owner_BQ: np.ndarray, end_BQ: np.ndarray
    ) -> Tensor | dict[str, Tensor]:
        """A query sees the trunk before its branch's end, and its own branch up to itself."""
        device = self.lm.device
        position_BK, owner_BK = (torch.from_numpy(x).to(device) for x in (self._position_BK, self._owner_BK))
        at_BQ, of_BQ, end = (torch.from_numpy(x).to(device) for x in (position_BQ, owner_BQ, end_BQ))
        key, owner = position_BK[:, None], owner_BK[:, None]
        trunk_BQK = (owner == TRUNK) & (key < end[:, :, None])
        own_BQK = (owner == of_BQ[:, :, None]) & (key <= at_BQ[:, :, None]) & (owner != PAD)
        # Padding sees the first token, as something must be seen.
        return self._masks.over(at_BQ, position_BK, trunk_BQK | own_BQK)
