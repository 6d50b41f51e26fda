"""What plays is what trains, for a small random model of each family; what cannot be right is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sage.errors import ModelError
from sage.policy.decoding import engine as choice
from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.engine import engine_report, make_engine, right_engine
from sage.policy.decoding.equivalence import engine_error
from sage.policy.decoding.generate import Decoder, answers
from sage.policy.decoding.masks import Masks
from sage.policy.decoding.padded import PaddedEngine
from sage.policy.decoding.rowwise import RowEngine
from sage.policy.models.hidden_states import check_head, head, hidden_states, training_error
from sage.policy.models.layers import reach, steady_length
from sage.policy.models.plain import HEAD, SHORT, TAIL, plain_logits, reference
from tests.families import FAMILIES, WINDOW, family

# Reference implementations of recurrent layers say that a faster package is missing.
pytestmark = pytest.mark.filterwarnings("ignore")

NOT_PLAYED = ("RecurrentGemma",)
CAPPED = ("Gemma 2", "RecurrentGemma")
ALONE = ("Llama, dynamic RoPE",)
HYBRIDS = ("Qwen3-Next", "Qwen3.5", "LFM2", "LFM2-MoE", "Granite 4, hybrid", "Falcon-H1", "Jamba")
GREEDY = Sampling(0.0, 1.0, 12)


@pytest.mark.parametrize("name", FAMILIES)
def test_decoding_is_the_plain_forward_or_the_model_is_refused(name: str) -> None:
    lm = family(name)
    report = engine_report(lm)
    if name in NOT_PLAYED:
        with pytest.raises(ModelError, match=r"No engine plays the model .* as it is trained") as refused:
            right_engine(lm)
        assert len(str(refused.value)) < 400
        return
    assert report.equal, report.finding()
    assert report.difference < 2e-4
    assert report.took_back == (name not in (*HYBRIDS, *ALONE))
    assert report.length >= 1.5 * (report.window or 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_trained_is_the_plain_forward_or_the_model_is_refused(name: str) -> None:
    lm = family(name)
    if name in CAPPED:
        with pytest.raises(ModelError, match="changes its logits after the output layer") as refused:
            check_head(lm)
        assert len(str(refused.value)) < 400
        return
    report = check_head(lm)
    assert report.equal
    assert report.difference < 2e-4


@pytest.mark.parametrize("name", ["Gemma 3", "gpt-oss", "Llama 4, text", "Qwen3.5", "LFM2", "Jamba"])
def test_greedy_answers_past_the_window_are_the_plain_forward_s(name: str) -> None:
    lm = family(name)
    decoder = Decoder(lm, 3, draft_tokens=4)
    generator = torch.Generator().manual_seed(5)
    history: list[list[int]] = [[], [], []]
    for lengths in ((40, 7, 19), (1, 9, 25)):
        prompts = [torch.randint(256, (n,), generator=generator).tolist() for n in lengths]
        unseen = [
            h[decoder.lengths[row] :] + p for row, (h, p) in enumerate(zip(history, prompts, strict=True))
        ]
        replies = answers(decoder, unseen, GREEDY, None, [500] * 3)
        for row in range(3):
            history[row] += prompts[row]
            for token in replies[row].ids:
                assert token == int(plain_logits(lm, history[row], 1).argmax())
                history[row].append(token)


def test_rows_of_a_mixture_of_experts_do_not_mix() -> None:
    lm = family("Qwen3-MoE")
    ids = [[1, 2, 3, 4, 5, 6, 7], [9] * 30, [200, 100]]
    together = make_engine(lm, 3, "hf").extend(slice(0, 3), ids, [1, 1, 1])
    other = make_engine(lm, 3, "hf").extend(slice(0, 3), [ids[0], [8] * 30, [3, 4]], [1, 1, 1])
    torch.testing.assert_close(together[0], other[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masks_come_in_the_form_that_the_attention_takes(attention: str) -> None:
    report = engine_error(family("Gemma 3", attn_implementation=attention), "hf")
    assert report.equal, report.finding()


def test_an_engine_that_is_wrong_is_found_passed_over_and_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = Masks.at

    def without_window(self: Masks, position: torch.Tensor, kv_length: int) -> object:
        masks = right(self, position, kv_length)
        assert isinstance(masks, dict)
        return dict.fromkeys(masks, masks["full_attention"])

    monkeypatch.setattr(Masks, "at", without_window)
    lm = family("Gemma 3")
    assert not engine_error(lm, "hf").equal
    assert right_engine(lm) == "rowwise"
    assert isinstance(make_engine(lm, 2, "auto"), RowEngine)
    with pytest.raises(ModelError, match=r"speed.engine=hf is not right for the model 'Gemma 3'") as refused:
        make_engine(lm, 2, "hf")
    assert "window 16" in str(refused.value)
    assert len(str(refused.value)) < 400


def test_an_error_of_one_position_at_the_border_of_the_window_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = family("Mistral, windowed")
    plain = Masks.at

    def one_more(self: Masks, position: torch.Tensor, kv_length: int) -> torch.Tensor:
        mask = plain(self, position, kv_length)
        assert isinstance(mask, torch.Tensor)
        key = torch.arange(kv_length)[None, None, None, :]
        return mask | (key == position[:, None, :, None] - WINDOW)

    monkeypatch.setattr(Masks, "at", one_more)
    assert not engine_error(lm, "hf").equal


def test_a_window_too_long_for_the_time_is_narrowed_and_left_as_it_was() -> None:
    lm = family("Gemma 3")
    lm.model.config.sliding_window = 4096
    report = engine_error(lm, "hf", operations=1e9)
    assert report.equal, report.finding()
    assert report.narrowed
    assert (report.length, report.window) == (SHORT, 4096)
    assert "window 4096 narrowed to 16" in report.finding()
    assert lm.model.config.sliding_window == 4096


def test_half_precision_is_judged_by_its_own_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = family("Gemma 3", dtype=torch.bfloat16)
    report = engine_error(lm, "hf")
    assert report.equal, report.finding()
    monkeypatch.setattr(Masks, "at", lambda self, position, kv_length: None)
    assert not engine_error(lm, "hf").equal


def test_in_half_precision_a_lost_token_and_a_fault_in_the_last_ones_are_more_than_rounding() -> None:
    lm = family("Qwen2", dtype=torch.bfloat16)
    count = HEAD + TAIL
    with reference(lm, "another way") as plain:
        same = [plain_logits(lm, ids, count) for ids in plain.rows]
        assert plain.report(same).equal
        lost = plain_logits(lm, plain.rows[0][1:], count)
        assert not plain.report([lost, *same[1:]]).equal
        wrong = plain_logits(lm, [*plain.rows[1][:-9], 5, *plain.rows[1][-8:]], count)
        assert 0 < int((wrong != same[1]).any(-1).sum()) <= 9
        assert not plain.report([same[0], wrong, same[2]]).equal


@pytest.mark.parametrize("name", ["Llama", "Gemma 3"])
def test_double_precision_is_right_as_well(name: str) -> None:
    lm = family(name, dtype=torch.float64)
    assert engine_report(lm).equal, engine_report(lm).finding()
    assert check_head(lm).equal


@pytest.mark.parametrize("name", ["Mixtral, windowed", "Qwen3-MoE", "Jamba"])
def test_a_token_that_rounding_sends_to_another_expert_refuses_no_model(name: str) -> None:
    lm = family(name, dtype=torch.bfloat16)
    report = engine_report(lm)
    assert report.equal, report.finding()
    assert check_head(lm).equal


def test_a_mixture_of_experts_in_half_precision_is_still_refused_without_its_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = family("Mixtral, windowed", dtype=torch.bfloat16)

    def causal(self: Masks, position: torch.Tensor, kv_length: int) -> torch.Tensor:
        return torch.arange(kv_length)[None, None, None, :] <= position[:, None, :, None]

    monkeypatch.setattr(Masks, "at", causal)
    report = engine_error(lm, "hf")
    assert not report.equal
    assert "typically" in report.finding()


def test_a_model_with_a_running_state_gets_no_guesses_and_cannot_be_taken_back() -> None:
    lm = family("LFM2")
    decoder = Decoder(lm, 1, draft_tokens=8)
    assert decoder.draft_tokens == 0
    engine = make_engine(lm, 1, "auto")
    engine.extend(slice(0, 1), [[1, 2, 3]], [1])
    engine.lengths[0] -= 1
    with pytest.raises(ModelError, match="cannot take tokens back"):
        engine.extend(slice(0, 1), [[4]], [1])
    with pytest.raises(ModelError, match=r"speed\.engine=hf .* keeps a running state"):
        make_engine(lm, 1, "hf")
    with pytest.raises(ModelError, match="does not know this architecture"):
        make_engine(lm, 1, "packed")


def test_each_model_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = family("Gemma 3")
    assert isinstance(make_engine(lm, 2, "auto"), PaddedEngine)
    monkeypatch.setattr(choice, "engine_error", lambda *_: pytest.fail("measured again"))
    make_engine(lm, 5, "hf")


@pytest.mark.parametrize("name", ["Granite", "Cohere 2", "Falcon-H1"])
def test_gradients_through_scaled_logits_are_the_plain_forward_s(name: str) -> None:
    lm = family(name)
    ids, targets = [[5, 6, 7, 8, 9], [10, 11, 12]], [6, 12, 200]
    positions = [[1, 4], [2]]
    logits = head(lm).logits(hidden_states(lm, ids, positions), 259)
    torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="sum").backward()
    ours = [None if p.grad is None else p.grad.clone() for p in lm.model.parameters()]
    lm.model.zero_grad()
    plain = torch.cat(
        [lm.model(input_ids=torch.tensor([i])).logits[0, p] for i, p in zip(ids, positions, strict=True)]
    )
    torch.nn.functional.cross_entropy(plain, torch.tensor(targets), reduction="sum").backward()
    for mine, parameter in zip(ours, lm.model.parameters(), strict=True):
        if parameter.grad is not None:
            size = float(parameter.grad.abs().max())
            torch.testing.assert_close(mine, parameter.grad, rtol=0, atol=1e-4 * size + 1e-7)


def test_a_cap_that_small_logits_do_not_show_is_found() -> None:
    lm = family("Gemma 3")
    lm.model.config.final_logit_softcapping = 50.0
    for parameter in (lm.model.model.norm.weight,):
        parameter.data.fill_(-0.99)  # times 0.01: logits far below the cap
    assert training_error(lm).difference < 1e-3
    with pytest.raises(ModelError, match="changes its logits after the output layer"):
        check_head(lm)


def test_a_training_forward_that_looks_at_the_padding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sage.policy.models import hidden_states as hidden

    right = hidden._forward

    def one_further(lm: Any, rows: list[Any], cache: None) -> torch.Tensor:
        if len(rows) == 1:
            return right(lm, rows, cache)
        return right(lm, [(ids[1:] + ids[:1], chosen) for ids, chosen in rows], cache)

    monkeypatch.setattr(hidden, "_forward", one_further)
    with pytest.raises(ModelError, match="cannot be trained as it plays: the training forward differs"):
        check_head(family("Llama"))


def test_positions_that_depend_on_the_longest_row_bound_the_context_and_rows_go_alone() -> None:
    lm = family("Llama, dynamic RoPE")
    assert (steady_length(lm), reach(lm)) == (24, 24)
    assert right_engine(lm) == "rowwise"
    ids = torch.randint(256, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    alone = hidden_states(lm, [ids[:10]], [range(10)])
    beside_a_long_row = hidden_states(lm, [ids[:10], ids], [range(10), [59]])[:10]
    torch.testing.assert_close(beside_a_long_row, alone, rtol=0, atol=0)
    assert (steady_length(family("Llama")), reach(family("Llama"))) == (None, 512)


def test_the_table_in_the_docs_has_every_family_with_its_outcome() -> None:
    page = Path(__file__).parents[2] / "docs" / "evidence" / "model_families.md"
    rows = {
        cells[1].strip(): cells
        for line in page.read_text("utf-8").splitlines()
        if len(cells := line.split("|")) > 6
    }
    assert set(FAMILIES) <= set(rows)
    for name in FAMILIES:
        plays, trains = rows[name][5], rows[name][6]
        assert ("refused" in plays) == (name in NOT_PLAYED)
        assert ("refused" in trains) == (name in CAPPED)
        for cell in (plays, trains):
            assert "refused" in cell or float(cell) < 2e-4
