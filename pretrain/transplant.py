"""Start SearchQA's tiny models from one that can copy already: ALFWorld's teacher under another vocabulary.

    python -m pretrain.transplant sage/assets/tiny-teacher <folder of the new tokenizer> <output>

From random weights models of this size did not learn in eight million tokens to finish a name as it was read;
from here it took about half a million. The blocks are taken as they are (the feed-forward width is cut to the
neurons of largest norms). What makes the difference are the embeddings: ALFWorld's model copies the number
that followed an object's name (`mug 3` ... `mug` -> `3`), so beginnings of names get embeddings of objects
and ends get points in the span of the numbers'. Every other token gets its own old embedding, or the mean
of its pieces'.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from sage.envs.searchqa.encyclopedia import ENDS, STARTS

_OBJECTS = (
    "mug knife bread apple tomato potato egg lettuce plate bowl cup pan pot spoon fork spatula "
    "butterknife saltshaker peppershaker soapbottle soapbar candle cloth towel handtowel toiletpaper "
    "book pen pencil pillow cd cellphone keychain creditcard alarmclock laptop newspaper "
    "remotecontrol statue vase watch box tissuebox basketball baseballbat tennisracket spraybottle "
    "dishsponge winebottle glassbottle ladle kettle cabinet drawer countertop shelf fridge microwave "
    "stoveburner sinkbasin garbagecan desk bed dresser sidetable armchair sofa diningtable "
    "coffeetable safe toilet bathtubbasin "
)
OBJECTS = _OBJECTS.split()
NUMBERS = range(1, 10)
"""Those that training deals to every kind of object."""


def transplant(
    source: Path, tokenizer: Path, output: Path, *, feed_forward: int = 336, seed: int = 0
) -> None:
    """Write the new model and its tokenizer to `output`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pretrain.learner import build_model

    old: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    old_words, words = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(tokenizer)
    config = old.config
    sizes = {
        "hidden": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "feed_forward": feed_forward,
        "context": config.max_position_embeddings,
    }
    new = build_model(sizes, len(words), seed)
    embedding_VW = embeddings(old, old_words, words, seed)
    state = {
        name: embedding_VW
        if name in ("model.embed_tokens.weight", "lm_head.weight")
        else _cut(old.state_dict(), name, feed_forward)
        for name in new.state_dict()
    }
    new.load_state_dict(state)
    new.save_pretrained(output)
    words.save_pretrained(output)


def embeddings(old: Any, old_words: Any, words: Any, seed: int) -> torch.Tensor:
    """The new vocabulary's embeddings [V, W]; pieces of names are drawn with `seed`."""
    old_VW = old.get_input_embeddings().weight.detach()
    known = old_words.get_vocab()
    rows = []
    for token, _ in sorted(words.get_vocab().items(), key=lambda item: item[1]):
        ids = [known[token]] if token in known else _ids(old_words, words.convert_tokens_to_string([token]))
        rows.append(old_VW[ids or slice(None)].mean(0))
    new_VW = torch.stack(rows)
    random = torch.Generator().manual_seed(seed)
    objects = [ids[0] for name in OBJECTS if len(ids := _ids(old_words, f" {name}")) == 1]
    for number, start in enumerate(STARTS):
        row_W = old_VW[objects[number % len(objects)]]
        for form in (f" {start}", start):
            if len(ids := _ids(words, form)) == 1:
                noise_W = torch.randn(row_W.shape, generator=random)
                new_VW[ids[0]] = row_W + 0.3 * row_W.std() * noise_W
    numbers_NW = old_VW[[_ids(old_words, f" {n}")[0] for n in NUMBERS]]
    mean_W = numbers_NW.mean(0)
    for number, end in enumerate(ENDS):
        place = words.get_vocab().get(end)
        if place is None:
            continue
        mix_N = torch.randn(len(numbers_NW), generator=random) / 3
        spread_W = mean_W + 1.5 * mix_N @ (numbers_NW - mean_W)
        new_VW[place] = numbers_NW[number] if number < len(numbers_NW) else spread_W
    return new_VW


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _cut(state: dict[str, torch.Tensor], name: str, width: int) -> torch.Tensor:
    """A parameter; those of a feed-forward layer keep the `width` neurons whose norms' product is largest."""
    if ".mlp." not in name:
        return state[name]
    layer = name.split(".mlp.")[0]
    gate, up, down = (state[f"{layer}.mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
    kept = (gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)).topk(width).indices.sort().values
    return state[name][:, kept] if ".down_proj." in name else state[name][kept]


if __name__ == "__main__":
    transplant(*map(Path, sys.argv[1:4]))
