# SPDX-License-Identifier: Apache-2.0
"""Meta folders: written from Hugging Face's, read again, cut into shards, damaged."""

from __future__ import annotations

import base64
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compare import HERE
from safetensors.numpy import save_file

import trine
from trine import meta, meta_tokenizer
from trine._core import WeightStore
from trine.cli import main
from trine.convert import convert
from trine.weight_writers import Stored, write_safetensors, write_torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDERS = HERE / "llama"
NAMES = ("generate", "generate-bias", "generate-granite")
IDS = [[5, 9, 33, 2, 70, 41, 12, 8, 1, 77, 30], [4], [7, 7, 3]]


def forward(source: Any) -> dict[str, np.ndarray]:
    with trine.load(source, dtype="float32", device="cpu") as model:
        assert type(model).__name__ == "Generator"
        return {str(i): model.forward([ids])["logits"] for i, ids in enumerate(IDS)}


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    """The same bits from both layouts; one file of weights and the small ones byte for byte."""
    source, there, back = FOLDERS / name, tmp_path / "meta", tmp_path / "hf"
    assert convert(source, there, to="meta") == []
    assert convert(there, back, to="hf") == []
    want = forward(source)
    for folder in (there, there / "consolidated.00.pth", back):
        assert_same(forward(folder), want)
    assert (back / "config.json").read_bytes() == (source / "config.json").read_bytes()
    if (source / "model.safetensors").exists():
        assert files_equal(source / "model.safetensors", back / "model.safetensors")
    index = source / "model.safetensors.index.json"
    stored = [(index if index.exists() else source / "model.safetensors", "")]
    assert_same_tensors(WeightStore(stored), WeightStore([(back / "model.safetensors", "")]))
    convert(back, tmp_path / "again", to="meta")
    for path in there.iterdir():
        assert files_equal(path, tmp_path / "again" / path.name)


def files_equal(a: Path, b: Path) -> bool:
    return a.read_bytes() == b.read_bytes()


def assert_same_tensors(a: WeightStore, b: WeightStore) -> None:
    assert sorted(a.names()) == sorted(b.names())
    for name in a.names():
        assert (a.dtype(name), a.shape(name)) == (b.dtype(name), b.shape(name))
        assert a.read(name) == b.read(name)


@pytest.mark.parametrize("name", NAMES)
def test_params_alone(name: str, tmp_path: Path) -> None:
    """Without a config.json, params.json says as much; and conversion back writes one."""
    convert(FOLDERS / name, tmp_path / "meta", to="meta")
    (tmp_path / "meta" / "config.json").unlink()
    want = forward(FOLDERS / name)
    assert_same(forward(tmp_path / "meta"), want)
    convert(tmp_path / "meta", tmp_path / "hf", to="hf")
    assert_same(forward(tmp_path / "hf"), want)


# Model-parallel shards ------------------------------------------------------------------------


def cut(name: str, words: int) -> int | None:
    """The dimension that Meta's training code cut a tensor along; None where it didn't."""
    module, _, kind = name.rpartition(".")
    last = module.rpartition(".")[2]
    if last == "tok_embeddings":
        return words
    if last in ("wq", "wk", "wv", "w1", "w3", "output"):
        return 0
    return 1 if last in ("wo", "w2") and kind == "weight" else None


def split(folder: Path, count: int, words: int, without: str = "") -> None:
    """Cut consolidated.00.pth into shards."""
    store = WeightStore([(folder / "consolidated.00.pth", "")])
    width = {"F16": 2, "BF16": 2, "F32": 4}
    for shard in range(count):
        tensors = []
        for name in store.names():
            if name == without and shard == count - 1:
                continue
            size = width[store.dtype(name)]
            whole = np.frombuffer(store.read(name), f"V{size}").reshape(store.shape(name))
            axis = cut(name, words)
            part = whole if axis is None else np.split(whole, count, axis)[shard]
            data = part.tobytes()
            tensors.append(Stored(name, store.dtype(name), part.shape, lambda data=data: data))
        write_torch(folder / f"cut.{shard:02}.pth", tensors)
    (folder / "consolidated.00.pth").unlink()
    for path in folder.glob("cut.*.pth"):
        path.rename(folder / path.name.replace("cut", "consolidated"))


@pytest.mark.parametrize("words", [0, 1])
@pytest.mark.parametrize(("name", "count"), [("generate", 2), ("generate-granite", 4)])
@pytest.mark.parametrize("configured", [False, True])
def test_shards(name: str, count: int, words: int, configured: bool, tmp_path: Path) -> None:
    """Embeddings cut by rows as from Llama 3 on, or by columns as before."""
    folder = tmp_path / "meta"
    convert(FOLDERS / name, folder, to="meta")
    if not configured:
        (folder / "config.json").unlink()
    split(folder, count, words)
    assert_same(forward(folder), forward(FOLDERS / name))
    convert(folder, tmp_path / "hf", to="hf")
    assert_same(forward(tmp_path / "hf"), forward(FOLDERS / name))


def test_shards_with_biases(tmp_path: Path) -> None:
    """Biases of cut outputs are cut, those of cut inputs are in every shard."""
    source, folder = tmp_path / "hf", tmp_path / "meta"
    make_llama(source, bias=True)
    convert(source, folder, to="meta")
    split(folder, 2, 0)
    assert_same(forward(folder), forward(source))


def make_llama(folder: Path, *, bias: bool = False, **changes: Any) -> None:
    """A random Llama of one layer; heads of 6 columns, which are not a quarter of the width."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 80,
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "tie_word_embeddings": False,
    } | changes
    shapes = {"self_attn.q_proj": (24, 16), "self_attn.k_proj": (12, 16)}
    shapes |= {"self_attn.v_proj": (12, 16), "self_attn.o_proj": (16, 24)}
    shapes |= {"mlp.gate_proj": (20, 16), "mlp.up_proj": (20, 16), "mlp.down_proj": (16, 20)}
    rng = np.random.RandomState(3)

    def draw(*shape: int) -> np.ndarray:
        return rng.randn(*shape).astype(np.float32)

    tensors = {"model.embed_tokens.weight": draw(80, 16), "lm_head.weight": draw(80, 16)}
    tensors["model.norm.weight"] = draw(16)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"model.layers.0.{norm}.weight"] = draw(16)
    for module, shape in shapes.items():
        tensors[f"model.layers.0.{module}.weight"] = draw(*shape)
        if bias:
            tensors[f"model.layers.0.{module}.bias"] = draw(shape[0])
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def test_rows_of_biases_turn_with_those_of_weights(tmp_path: Path) -> None:
    make_llama(tmp_path / "hf", bias=True)
    convert(tmp_path / "hf", tmp_path / "meta", to="meta")
    stored = WeightStore([(tmp_path / "hf" / "model.safetensors", "")])
    found = WeightStore([(tmp_path / "meta" / "consolidated.00.pth", "")])
    order = [0, 3, 1, 4, 2, 5]  # rows of a head of six
    for module, heads in (("q", 4), ("k", 2)):
        for kind in ("weight", "bias"):
            rows = stored.floats(f"model.layers.0.self_attn.{module}_proj.{kind}")
            want = rows.reshape(heads, 6, -1)[:, order].reshape(rows.shape)
            got = found.floats(f"layers.0.attention.w{module}.{kind}")
            np.testing.assert_array_equal(got, want)


# Writers --------------------------------------------------------------------------------------


def test_safetensors_to_the_byte(tmp_path: Path) -> None:
    """What the library writes, whatever the dtypes and names."""
    rng = np.random.RandomState(1)
    dtypes = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "u1", "F64": "<f8", "BOOL": "?"}
    for count in (1, 2, 17):
        arrays = {}
        for i in range(count):
            shape = tuple(rng.randint(0, 4, rng.randint(0, 4)))
            dtype = list(dtypes.values())[rng.randint(len(dtypes))]
            arrays[f'w\u00e9.{i}"\\'] = np.array(rng.rand(*shape) * 100).astype(dtype)
        save_file(arrays, tmp_path / "want", metadata={"format": "pt"})
        names = {np.dtype(kind): name for name, kind in dtypes.items()}
        tensors = [
            Stored(name, names[a.dtype], a.shape, lambda a=a: a.tobytes())
            for name, a in arrays.items()
        ]
        write_safetensors(tmp_path / "got", tensors)
        assert files_equal(tmp_path / "want", tmp_path / "got")


def test_a_type_that_cannot_be_written(tmp_path: Path) -> None:
    odd = [Stored("x", "Q4_0", (32,), lambda: b"")]
    for write in (write_safetensors, write_torch):
        with pytest.raises(trine.ModelError, match="tensor 'x' is Q4_0; BOOL, U8"):
            write(tmp_path / "file", odd)


# What is refused ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_llama(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "meta", to="meta")
    (tmp_path / "meta" / "config.json").unlink()
    return tmp_path / "meta"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "params.json"
    params = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in params.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dim": None}, "params.json: dim is None, expected at least 1"),
        ({"dim": "16"}, "dim is '16', expected int"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_kv_heads": 3}, "n_kv_heads|num_key_value_heads|3 heads"),
        ({"n_heads": 5}, "5 heads"),
        ({"rope_theta": "big"}, "rope_theta is 'big', expected a number"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "rope_type 'spiral' is not known"),
        ({"head_dim": 5}, "head_dim must be even"),
        ({"dim": 8}, "vocab_size and hidden_size ask for"),
    ],
)
def test_fields_that_make_no_sense(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    edit(folder, **changes)
    with pytest.raises(trine.ModelError, match=complaint):
        trine.load(folder)


def test_shards_that_make_no_sense(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    split(folder, 2, 0)
    (folder / "consolidated.01.pth").rename(folder / "consolidated.02.pth")
    with pytest.raises(trine.ModelError, match=r"consolidated\.01\.pth is missing"):
        trine.load(folder)

    shutil.copyfile(whole / "consolidated.00.pth", folder / "consolidated.01.pth")
    (folder / "consolidated.02.pth").unlink()
    with pytest.raises(trine.ModelError, match=r"01\.pth.*in the first shard"):
        trine.load(folder)

    lacking = tmp_path / "lacking"
    shutil.copytree(whole, lacking)
    split(lacking, 2, 0, without="norm.weight")
    with pytest.raises(trine.ModelError, match=r"01\.pth: no tensor 'norm\.weight'"):
        trine.load(lacking)

    other = tmp_path / "other"
    shutil.copytree(whole, other)
    split(other, 2, 0)
    write_changed(other / "consolidated.01.pth", "layers.0.ffn_norm.weight")
    with pytest.raises(trine.ModelError, match=r"ffn_norm\.weight': other values than in the"):
        trine.load(other)


def write_changed(path: Path, changed: str) -> None:
    """Write the file again with zeros for one tensor."""
    store = WeightStore([(path, "")])
    tensors = []
    for name in store.names():
        data = store.read(name)
        data = bytes(len(data)) if name == changed else data
        tensors.append(Stored(name, store.dtype(name), store.shape(name), lambda data=data: data))
    path.unlink()
    write_torch(path, tensors)


def test_a_tensor_of_another_model(folder: Path) -> None:
    store = WeightStore([(folder / "consolidated.00.pth", "")])
    tensors = [
        Stored(n, store.dtype(n), store.shape(n), lambda n=n: store.read(n)) for n in store.names()
    ]
    tensors.append(Stored("vision.weight", "F32", (1,), lambda: bytes(4)))
    write_torch(folder / "more.pth", tensors)
    (folder / "more.pth").rename(folder / "consolidated.00.pth")
    with pytest.raises(trine.ModelError, match=r"'vision\.weight' is none of Llama's"):
        trine.load(folder)


def test_frequencies_are_passed_over(folder: Path) -> None:
    want = forward(folder)
    store = WeightStore([(folder / "consolidated.00.pth", "")])
    tensors = [
        Stored(n, store.dtype(n), store.shape(n), lambda n=n: store.read(n)) for n in store.names()
    ]
    freqs = ("rope.freqs", "layers.0.attention.inner_attention.rope.freqs")
    tensors += [Stored(name, "F32", (3,), lambda: bytes(12)) for name in freqs]
    write_torch(folder / "more.pth", tensors)
    (folder / "more.pth").rename(folder / "consolidated.00.pth")
    assert_same(forward(folder), want)


def test_what_is_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_llama(tmp_path / "gelu", hidden_act="gelu")
    with pytest.raises(trine.ModelError, match="hidden_act is 'gelu'; Meta's layout knows silu"):
        convert(tmp_path / "gelu", tmp_path / "out", to="meta")
    with pytest.raises(trine.ModelError, match="no model for the task 'generate'"):
        convert(HERE / "heads" / "model", tmp_path / "out", to="meta")
    with pytest.raises(trine.ModelError, match=r"no params\.json"):
        convert(FOLDERS / "generate", tmp_path / "out", to="hf")
    with pytest.raises(trine.InputError, match="not empty"):
        convert(FOLDERS / "generate", tmp_path / "gelu", to="meta")
    assert not (tmp_path / "out").exists()
    assert main(["convert", str(tmp_path / "gelu"), str(tmp_path / "out"), "--to", "meta"]) == 2
    assert "silu" in capsys.readouterr().err


def test_command_and_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_llama(tmp_path / "hf")
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "meta"), "--to", "meta"]) == 0
    (tmp_path / "meta" / "config.json").unlink()
    edit(tmp_path / "meta", use_scaled_rope=True)
    with trine.load(tmp_path / "meta") as model:
        assert "rope_scaling_factor: 32 taken" in model.info()["notes"][0]
    assert main(["convert", str(tmp_path / "meta"), str(tmp_path / "back"), "--to", "hf"]) == 0
    assert "rope_scaling_factor: 32 taken" in capsys.readouterr().err
    rope = json.loads((tmp_path / "back" / "config.json").read_text())["rope_parameters"]
    assert rope == {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"norm_eps": 1e-6}, ("default", 10000.0, 2048)),
        ({}, ("default", 10000.0, 4096)),
        ({"rope_theta": 500000.0}, ("default", 500000.0, 8192)),
        ({"rope_theta": 1000000}, ("default", 1e6, 16384)),
        ({"rope_theta": 500000.0, "use_scaled_rope": True}, ("llama3", 500000.0, 131072)),
        ({"max_seq_len": 77}, ("default", 10000.0, 77)),
    ],
)
def test_positions(params: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"dim": 16, "n_heads": 2, "n_layers": 1} | params))
    shapes = {"tok_embeddings.weight": (80, 16), "layers.0.feed_forward.w1.weight": (20, 16)}
    config = meta.read_config(path, shapes, 1, [])
    rope = config["rope_parameters"]
    found = (rope["rope_type"], rope["rope_theta"], config["max_position_embeddings"])
    assert found == expected


@pytest.mark.parametrize("hidden", [16, 576, 2048, 4096, 5120])
def test_feed_forward_size(hidden: int) -> None:
    """Meta's code computes the size from two factors: those that are written give it."""
    for size in (1, 3, 20, 44, 1536, 5632, 8191, 8192, 11008, 13824, 14336, 28672):
        fields = meta._feed_forward(hidden, size)
        computed = int(2 * 4 * hidden / 3)
        if "ffn_dim_multiplier" in fields:
            computed = int(fields["ffn_dim_multiplier"] * computed)
        multiple = fields["multiple_of"]
        assert multiple * ((computed + multiple - 1) // multiple) == size


# Tokenizers -----------------------------------------------------------------------------------


def ranks() -> Iterator[bytes]:
    yield from (bytes([b]) for b in range(256))
    yield from (
        b"he",
        b"ll",
        b"hell",
        b"o ",
        b" w",
        b"or",
        b"wor",
        b" wor",
        b"ld",
        "\u00e9".encode(),
    )


def test_tiktoken(folder: Path) -> None:
    lines = [base64.b64encode(t).decode() + f" {i}\n" for i, t in enumerate(ranks())]
    path = folder / "tokenizer.model"
    path.write_text("".join(lines))
    count = len(lines)
    tokenizer = meta_tokenizer.MetaTokenizer(path, vocab_size=count + 256, limit=100)
    backend = tokenizer.encoder().backend
    tokens = list(ranks())
    got = backend.encode("hello world \u00e9!<|eot_id|>").ids
    assert got[0] == count
    assert got[-1] == count + 9
    want = [b"hell", b"o", b" wor", b"ld", b" ", "\u00e9".encode(), b"!"]
    assert [tokens[i] for i in got[1:-1]] == want
    assert backend.decode(got) == "hello world \u00e9!"
    assert backend.get_vocab_size() == count + 256
    assert tokenizer.ids() == {
        "bos_token_id": count,
        "eos_token_id": [count + 1, count + 8, count + 9],
    }
    names = [meta_tokenizer.special_name(i) for i in (2, 5, 11, 255)]
    assert names == [f"<|reserved_special_token_{i}|>" for i in (0, 2, 3, 247)]
    with pytest.raises(trine.ModelError, match="tokens, the embedding table has 80"):
        trine.load(folder).generate("hello")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("YQ== 0\nYg== 2\n", "line 2 is not a token with the rank 1"),
        ("YQ== 0\nYg= 1\n", "line 2 is not a token"),
        ("YQ== 0\n\nYg== 1\n", "line 2 is not a token"),
        ("YQ== 0\nYQ== 1\n", "a token comes twice"),
        ("nothing of this kind", "not a SentencePiece model"),
        ("", "not a SentencePiece model|no pieces"),
    ],
)
def test_tokenizers_that_make_no_sense(folder: Path, text: str, complaint: str) -> None:
    (folder / "tokenizer.model").write_text(text)
    with pytest.raises(trine.ModelError, match=complaint):
        trine.load(folder).generate("hello")


def test_without_a_tokenizer(folder: Path) -> None:
    with trine.load(folder) as model:
        assert len(model.generate([1, 2, 3], max_new_tokens=4).tokens) == 4
        with pytest.raises(trine.ModelError, match=r"tokenizer\.model: missing, so this model"):
            model.generate("hello")
