"""Damaged model folders of every kind that users bring: one sentence each, and no noise for weights."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from sage.config.schema import ModelSettings
from sage.errors import ModelError
from sage.policy.models.load import load_model
from sage.policy.models.loaded import left_out
from tests.tiny_models import tiny_lm

WEIGHTS = "model.safetensors"
Damage = Callable[[Path], Any]


def settings(path: object, **changes: Any) -> ModelSettings:
    names = ("revision", "gguf_file", "chat_template", "attn_implementation")
    plain = dict.fromkeys(names) | {"dtype": "float32", "device": "cpu", "thinking": False}
    plain |= {"model_kwargs": {}}
    return ModelSettings.model_validate(plain | {"path": str(path)} | changes)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` leaves it, with a head of its own."""
    folder = tmp_path_factory.mktemp("models") / "sound"
    lm = tiny_lm(0, tie=False)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in several files with an index."""
    folder = tmp_path_factory.mktemp("models") / "sharded"
    lm = tiny_lm(0, tie=False)
    lm.model.save_pretrained(folder, max_shard_size="20KB")
    lm.tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_the_sound_folders_load(sound: Path, sharded: Path) -> None:
    assert (
        load_model(settings(sound)).digest
        == load_model(settings(sharded)).digest
        == tiny_lm(0, tie=False).digest
    )


@pytest.mark.parametrize("name", ["visual.blocks.0.attn.qkv.weight", "model.vision_tower.patch.weight"])
def test_weights_that_reading_text_does_not_need_are_named(sound: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(sound, tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    extra = {name: torch.ones(2, 2), name.replace("weight", "bias"): torch.ones(2)}
    save_file(tensors | extra, folder / WEIGHTS, metadata={"format": "pt"})
    loaded = load_model(settings(folder))
    assert loaded.digest == load_model(settings(sound)).digest
    module = "visual" if name.startswith("visual") else "vision_tower"
    assert loaded.left_out.endswith(f"2 tensors take no part, for a run reads text only: {module}.")
    assert load_model(settings(sound)).left_out == ""


def test_what_transformers_drops_without_a_word_and_what_is_loaded_in_vain_are_named() -> None:
    model = tiny_lm(0, tie=False).model
    model._keys_to_ignore_on_load_unexpected = {r"^mtp\."}
    model.vision_tower = torch.nn.Linear(2, 2)
    info = {"unexpected_keys": set()}
    said = left_out("m", model, info, ["mtp.layers.0.weight", "lm_head.weight", "a.rotary_emb.inv_freq"])
    assert said == (
        "Of the weights of 'm' 3 tensors take no part, for a run reads text only: mtp, vision_tower."
    )


# Ways to break one ----------------------------------------------------------------------------------------


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str | bytes) -> Damage:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def keep(name: str, share: float) -> Damage:
    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return cut


def config(**changes: Any) -> Damage:
    def edit(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            data[key] = value
            if value is None:
                del data[key]
        (folder / "config.json").write_text(json.dumps(data))

    return edit


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    def edit(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS, metadata={"format": "pt"})

    return edit


def fill(key: str, value: float) -> Damage:
    return tensors(lambda held: held[key].view(-1).__setitem__(3, value))


def all_but(*names: str) -> Damage:
    def clear(folder: Path) -> None:
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()

    return clear


def rename(old: str, new: str) -> Damage:
    return lambda folder: (folder / old).rename(folder / new)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def stray_bias(held: dict[str, torch.Tensor]) -> None:
    held["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)


Q = "model.layers.1.self_attn.q_proj.weight"
SOUND: dict[str, tuple[Damage, str]] = {
    "empty folder": (all_but(), "is empty"),
    "no config": (remove("config.json"), "no config.json"),
    "config cut": (keep("config.json", 0.6), "config.json is no JSON"),
    "config empty": (write("config.json", ""), "config.json is no JSON"),
    "config of bytes": (write("config.json", b"\xff\xfe\x00x"), "config.json is no JSON"),
    "config a list": (write("config.json", "[]"), "a JSON object with a 'model_type'"),
    "config null": (write("config.json", "null"), "a JSON object with a 'model_type'"),
    "config an error page": (write("config.json", "<html>404</html>"), "config.json is no JSON"),
    "config without kind": (config(model_type=None), "a JSON object with a 'model_type'"),
    "config of number kind": (config(model_type=7), "a JSON object with a 'model_type'"),
    "config of unknown kind": (config(model_type="quen9"), "cannot be used.*quen9"),
    "config needs own code": (
        config(model_type="quen9", auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}),
        "code of its own",
    ),
    "an encoder": (config(model_type="vit"), "no causal language model"),
    "more layers than weights": (
        config(num_hidden_layers=3, layer_types=None),
        r"lack \d+ tensors.*layers\.2\.",
    ),
    "fewer layers than weights": (
        config(num_hidden_layers=1, layer_types=None),
        r"no place for.*layers\.1\.",
    ),
    "wider": (config(hidden_size=64), "other shapes|could not be loaded"),
    "other heads": (config(num_attention_heads=8), "other shapes|could not be loaded"),
    "heads that do not divide": (
        config(num_attention_heads=3),
        "other shapes|could not be loaded|cannot be used",
    ),
    "larger vocabulary": (config(vocab_size=400), "other shapes|could not be loaded"),
    "hidden size a text": (config(hidden_size="wide"), "cannot be used|could not be loaded"),
    "hidden size negative": (config(hidden_size=-4), "cannot be used|could not be loaded"),
    "unknown activation": (config(hidden_act="gelo"), "could not be loaded|cannot be used"),
    "unknown rope": (
        config(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}),
        "could not be loaded|cannot be used",
    ),
    "unknown dtype": (config(dtype="float33"), "cannot be used|could not be loaded"),
    "no weights": (remove(WEIGHTS), "holds no weights"),
    "weights empty": (write(WEIGHTS, ""), "is empty"),
    "weights of five bytes": (write(WEIGHTS, "hello"), "is cut off"),
    "weights an error page": (write(WEIGHTS, "<html>" + "x" * 500), "is no safetensors file"),
    "weights a git-lfs pointer": (
        write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is no safetensors file",
    ),
    "weights cut in the header": (keep(WEIGHTS, 0.005), "inside its header"),
    "weights cut at half": (keep(WEIGHTS, 0.5), r"is cut off \("),
    "weights one byte short": (lambda f: keep(WEIGHTS, 1 - 1e-6)(f), r"is cut off \("),
    "weights with a tail": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes() + b"x"),
        "longer than its header",
    ),
    "weights' header no JSON": (
        write(WEIGHTS, struct.pack("<Q", 9) + b"{not json"),
        "header of .* cannot be read",
    ),
    "weights without a tensor": (write(WEIGHTS, struct.pack("<Q", 2) + b"{}"), "holds no tensor"),
    "one tensor missing": (
        tensors(lambda held: held.pop(Q)),
        r"lack 1 tensors.*layers\.1\.self_attn\.q_proj",
    ),
    "head missing": (tensors(lambda held: held.pop("lm_head.weight")), r"lack 1 tensors.*lm_head\.weight"),
    "embeddings missing": (tensors(lambda held: held.pop("model.embed_tokens.weight")), "embed_tokens"),
    "norm missing": (tensors(lambda held: held.pop("model.norm.weight")), r"model\.norm\.weight"),
    "a layer missing": (
        tensors(lambda held: [held.pop(k) for k in list(held) if ".layers.0." in k]),
        r"lack \d+ tensors.*and \d+ more",
    ),
    "names of another kind": (
        tensors(lambda held: [held.update({f"net.{k}": held.pop(k)}) for k in list(held)]),
        "lack",
    ),
    "a bias the config denies": (tensors(stray_bias), "no place for.*bias"),
    "a head of a classifier": (
        tensors(lambda held: held.update({"score.weight": torch.zeros(2, 32)})),
        r"no place for.*score\.weight",
    ),
    "a tensor of another shape": (
        tensors(lambda held: held.update({Q: torch.zeros(4, 4)})),
        "other shapes|could not be loaded",
    ),
    "a weight NaN": (fill(Q, float("nan")), "1 of 1,024 that are NaN or infinite"),
    "a weight infinite": (fill("model.norm.weight", float("inf")), "NaN or infinite"),
    "a weight minus infinite": (fill(Q, float("-inf")), "1 of 1,024 that are NaN or infinite"),
    "a head NaN": (fill("lm_head.weight", float("nan")), r"lm_head\.weight has 1"),
    "embeddings zero": (tensors(lambda held: held["model.embed_tokens.weight"].zero_()), "all zero"),
    "only a pickle": (pickled, "only as pickles"),
    "an adapter": (write("adapter_config.json", '{"peft_type": "LORA"}'), "holds an adapter"),
    "an adapter alone": (
        lambda f: (
            all_but("x")(f),
            write("adapter_config.json", "{}")(f),
            write("adapter_model.safetensors", "x")(f),
        ),
        "holds an adapter",
    ),
    "a shard without its index": (
        rename(WEIGHTS, "model-00001-of-00002.safetensors"),
        "no model.safetensors.index",
    ),
    "a GGUF not named": (rename(WEIGHTS, "model.gguf"), r"gguf_file=model\.gguf"),
    "no tokenizer": (
        lambda f: [p.unlink() for p in f.iterdir() if "token" in p.name],
        "has no tokenizer",
    ),
    "tokenizer cut": (keep("tokenizer.json", 0.5), "tokenizer.json is no JSON"),
    "tokenizer empty": (write("tokenizer.json", "{}"), "tokenizer of .* could not be loaded"),
    "tokenizer config cut": (keep("tokenizer_config.json", 0.5), "tokenizer_config.json is no JSON"),
    "tokenizer larger than the model": (
        lambda f: grown(f),
        "output rows for a tokenizer of",
    ),
    "no template": (remove("chat_template.jinja"), "has no chat template"),
    "generation config cut": (write("generation_config.json", "{"), "generation_config.json is no JSON"),
}


def part(number: int, damage: Callable[[str], Damage]) -> Damage:
    """The damage to the file of that number."""
    return lambda folder: damage(next(folder.glob(f"model-{number:05d}-of-*.safetensors")).name)(folder)


def exchanged(folder: Path) -> None:
    one, two = (next(folder.glob(f"model-{n:05d}-of-*.safetensors")) for n in (1, 2))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)


INDEX = f"{WEIGHTS}.index.json"
SHARDED: dict[str, tuple[Damage, str]] = {
    "a file missing": (part(2, remove), "is not there"),
    "a file empty": (part(2, lambda name: write(name, "")), "is empty"),
    "a file cut": (part(2, lambda name: keep(name, 0.9)), "is cut off"),
    "index cut": (keep(INDEX, 0.5), "cannot be read as an index"),
    "index without a map": (write(INDEX, '{"metadata": {}}'), "cannot be read as an index"),
    "index names nothing": (write(INDEX, '{"weight_map": {}}'), "names no weights"),
    "index points outside": (
        write(INDEX, '{"weight_map": {"a": "../x.safetensors"}}'),
        "not a file beside it",
    ),
    "two files in each other's place": (exchanged, f"lacks .*, which {INDEX} says"),
}


def grown(folder: Path) -> None:
    tokenizer = tiny_lm(0).tokenizer
    tokenizer.add_tokens([f"<w{i}>" for i in range(9)])
    tokenizer.save_pretrained(folder)


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(ModelError) as error:
        load_model(settings(folder, **changes))
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert len(sentence) < 400 + len(str(folder))
    return sentence


def test_enough_ways_are_tried() -> None:
    assert len(SOUND) + len(SHARDED) >= 60


@pytest.mark.parametrize("name", SOUND)
def test_a_damaged_folder_is_refused_in_one_sentence(name: str, sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sound, folder)
    damage, words = SOUND[name]
    damage(folder)
    assert re.search(words, refused(folder))


@pytest.mark.parametrize("name", SHARDED)
def test_damaged_files_of_a_sharded_model_are_refused(name: str, sharded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sharded, folder)
    damage, words = SHARDED[name]
    damage(folder)
    assert re.search(words, refused(folder))


def test_models_of_another_kind_are_refused(sound: Path, tmp_path: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    both_ways = BertLMHeadModel(BertConfig(vocab_size=300, is_decoder=False, **small))
    two_parts = T5ForConditionalGeneration(
        T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1)
    )
    for name, model in {"bert": both_ways, "t5": two_parts}.items():
        folder = tmp_path / name
        model.save_pretrained(folder)
        tiny_lm(0).tokenizer.save_pretrained(folder)
    assert "no causal language model" in refused(tmp_path / "bert")
    assert "an encoder with a decoder" in refused(tmp_path / "t5")


def test_a_path_that_is_no_folder_says_what_a_model_is(sound: Path, tmp_path: Path) -> None:
    assert "is not there, nor is" in refused(tmp_path / "no" / "such")
    assert "is not there;" in refused(tmp_path / "nothing")
    assert "is a file" in refused(sound / "config.json")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert f"path={tmp_path} and gguf_file=m.gguf" in refused(tmp_path / "m.gguf")
    assert "neither a folder here nor" in refused(Path("a name with spaces"))


def test_a_template_file_that_is_not_there_is_named(sound: Path, tmp_path: Path) -> None:
    assert "is not a file" in refused(sound, chat_template=str(tmp_path / "t.jinja"))


@pytest.mark.parametrize("device", ["cuda:7", "cuda", "gpu", "cuda:x", "meta", "mps", "xla:1"])
def test_a_device_that_is_not_there_is_refused(device: str, sound: Path) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one here")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one here")
    assert f"device={device}" in refused(sound, device=device)


def test_a_role_goes_in_front(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^Teacher: The folder .* is empty"):
        load_model(settings(tmp_path), role="teacher")
