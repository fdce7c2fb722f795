# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the compiled core, and small folders: what the Python side is tested on."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from trine import Generator, InputError
from trine.checkpoint import Checkpoint
from trine.sentence_transformers import SentenceConfig
from trine.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [
    "the",
    "a",
    "of",
    "and",
    "in",
    "is",
    "was",
    "it",
    "river",
    "city",
    "lake",
    "mountain",
    "bridge",
    "harbour",
    "committee",
    "budget",
    "weather",
    "service",
    "london",
    "paris",
    "ada",
    "grace",
    "lives",
    "works",
    "there",
    "who",
    "where",
    "what",
    "red",
    "green",
    "blue",
    "very",
    "long",
    "text",
    "answer",
    "question",
    "walk",
    "##s",
    "##ing",
    "##ed",
    "##er",
    "##ly",
    "play",
    "talk",
    ".",
    ",",
    "!",
    "?",
    "-",
    "'",
    "1",
    "2",
    "3",
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]"]
LETTERS = [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"] + list("bdefghjklmnopqrstuvwxyz")
VOCAB = [*SPECIAL, *WORDS, *LETTERS, "<mask>"]
PAD, MASK = VOCAB.index("<pad>"), VOCAB.index("<mask>")
HIDDEN = 12


def make_tokenizer() -> Tokenizer:
    """MPNet's kind of tokenizer, with the truncation and padding that published files carry."""
    tokenizer = Tokenizer(WordPiece({token: i for i, token in enumerate(VOCAB)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(pad_id=PAD, pad_token="<pad>", length=9)
    return tokenizer


TOKENIZER_CONFIG = {
    "tokenizer_class": "MPNetTokenizer",
    "model_max_length": 40,
    "do_lower_case": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": {"content": "<s>", "lstrip": False},
    "unk_token": "[UNK]",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def write_tokenizer(folder: Path, **changes: Any) -> Path:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG | changes))
    return folder


class FakeCore:
    """Computes cheap things that depend on every token, its place and its sequence alone."""

    HEADS: ClassVar = {
        "embed": {"last_hidden_state": "tokens", "sentence_embedding": "sequences"},
        "classify": {"logits": "sequences"},
        "choose": {"logits": "sequences"},
        "tag": {"logits": "tokens"},
        "detect": {"logits": "tokens"},
        "fill": {"logits": "tokens"},
        "ask": {"start_logits": "tokens", "end_logits": "tokens"},
    }

    def __init__(self, task: str, columns: int = HIDDEN) -> None:
        rng = np.random.RandomState(3)
        self.table = rng.standard_normal((len(VOCAB), HIDDEN)).astype(np.float32)
        self.mix = rng.standard_normal((2, HIDDEN, columns)).astype(np.float32)
        self.kinds = {name: (kind, columns) for name, kind in self.HEADS[task].items()}
        self.runs: list[list[int]] = []  # lengths of the sequences of each run
        self.types: list[np.ndarray | None] = []
        self.closed = False

    @property
    def outputs(self) -> dict[str, tuple[str, int]]:
        if self.closed:
            raise InputError("the model is closed")
        return self.kinds

    def run(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        *,
        token_types: np.ndarray | None = None,
        prompt_lengths: np.ndarray | None = None,
        outputs: Any,
    ) -> dict[str, np.ndarray]:
        assert ids.dtype == offsets.dtype == np.int32
        assert offsets[0] == 0
        assert offsets[-1] == len(ids)
        self.runs.append(np.diff(offsets).tolist())
        self.types.append(token_types)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(VOCAB)):
            raise InputError("an id is out of range")
        results: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
        for i, (start, end) in enumerate(pairwise(offsets)):
            skip = 0 if prompt_lengths is None else int(prompt_lengths[i])
            for name in outputs:
                results[name].append(self.one(name, ids[start:end], skip))
        columns = {name: self.kinds[name][1] for name in outputs}
        return {
            n: np.concatenate([np.zeros((0, columns[n]), np.float32), *v])
            for n, v in results.items()
        }

    def one(self, name: str, ids: np.ndarray, skip: int = 0) -> np.ndarray:
        """One sequence's output, [length, columns] or [1, columns]."""
        place = np.cos(np.arange(len(ids), dtype=np.float32))[:, None]
        mixed = (self.table[ids] + place) @ self.mix[int(name == "end_logits")]
        if self.kinds[name][0] == "tokens":
            return mixed
        return mixed[skip:].sum(axis=0, keepdims=True) / max(len(ids) - skip, 1)

    def prepare(self, outputs: Any) -> None:
        assert set(outputs) <= set(self.outputs)

    def profile(self, ids: np.ndarray, offsets: np.ndarray, outputs: Any) -> list[dict[str, Any]]:
        del offsets, outputs
        step = {"op": "linear", "name": "all", "dtype": "float32", "ms": 0.1}
        return [step | {"flops": 1e6 * len(ids), "bytes": 4e5 + 100.0 * len(ids)}]

    def info(self) -> dict[str, Any]:
        return {"device": "cpu", "isa": "fake", "dtype": "float32", "threads": 1}

    def close(self) -> None:
        self.closed = True


def make(
    kind: type,
    folder: Path,
    *,
    columns: int = HIDDEN,
    config: dict[str, Any] | None = None,
    limit: int | None = 60,
    sentence: SentenceConfig | None = None,
    token_types: bool = False,
) -> Any:
    """A task of class `kind` on a fake core; `model._core` is it."""
    task = {
        "Embedder": "embed",
        "Classifier": "classify",
        "Tagger": "tag",
        "Reader": "ask",
        "Filler": "fill",
        "Chooser": "choose",
        "Detector": "detect",
    }[kind.__name__]
    settings = {"model_type": "mpnet", "vocab_size": len(VOCAB)} | (config or {})
    sentence = sentence or SentenceConfig()
    checkpoint = Checkpoint(
        source="fake",
        folder=folder,
        config=settings,
        architecture="FakeModel",
        task=task,
        limit=limit,
        padding_idx=PAD,
        sentence=sentence,
        token_types=token_types,
    )
    tokenizer = TokenizerFiles(
        folder,
        settings,
        max_seq_length=sentence.max_seq_length,
        most=limit,
        lowercase=sentence.lowercase,
        token_types=token_types,
    )
    return kind(FakeCore(task, columns), checkpoint, tokenizer)


def make_byte_level() -> Tokenizer:
    """A byte-level BPE tokenizer without merges but two: most characters are several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "</s>", "<pad>", *alphabet, "he", "ll"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocab, [("h", "e"), ("l", "l")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<pad>"])
    return tokenizer


def make_byte_fallback() -> Tokenizer:
    """Llama 2's kind: pieces with a mark for spaces, bytes for characters that it lacks."""
    letters = "abcdefghijklmnopqrstuvwxyzHTZ,.!\u2581"
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters, "\u2581w"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    model = BPE(vocab, [("\u2581", "w")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


class FakeSession:
    """What `_core.Session` does, over scores that depend on all tokens of a sequence alone."""

    def __init__(self, model: FakeDecoder, *, capacity: int, output: str) -> None:
        assert output == "next_logits"
        self.model, self.capacity = model, capacity
        self.rows: dict[int, dict[str, Any]] = {}
        self.next = 0
        model.sessions.append(self)

    def add(
        self, prompt: np.ndarray, *, max_new_tokens: int, prefix: int | None = None, **options: Any
    ) -> int:
        assert prompt.dtype == np.int32
        assert len(prompt) + max_new_tokens <= self.capacity
        shared = 0
        if prefix is not None:
            known = self.rows[prefix]["ids"]
            while shared < len(prompt) - 1 and known[shared : shared + 1] == [prompt[shared]]:
                shared += 1
        self.model.computed += len(prompt) - shared
        row = {"ids": prompt.tolist(), "limit": len(prompt) + max_new_tokens, "options": options}
        self.rows[self.next] = row | {"prompt": len(prompt), "finish": None}
        self.next += 1
        return self.next - 1

    def step(self) -> list[dict[str, Any]]:
        steps = []
        for number, row in self.rows.items():
            if row["finish"] is not None:
                continue
            options, made = row["options"], len(row["ids"]) - row["prompt"]
            scores = self.model.scores(row["ids"])
            ends = options.get("end_tokens", [])
            if made < options.get("min_new_tokens", 0):
                scores[ends] = -np.inf
            if options.get("temperature", 0) > 0:
                noise = np.random.RandomState((options["seed"] + made) % (1 << 32))
                scores = scores + options["temperature"] * noise.gumbel(size=len(scores))
            token = int(scores.argmax())
            row["ids"].append(token)
            full = len(row["ids"]) == row["limit"]
            row["finish"] = "stop" if token in ends else "length" if full else None
            if self.model.broken:
                row["finish"] = "nan"
            top = np.argsort(-scores)[: max(0, options.get("logprobs", -1))]
            steps.append(
                {
                    "sequence": number,
                    "token": token,
                    "logprob": float(scores[token]),
                    "top": [(int(i), float(scores[i])) for i in top],
                    "finish": row["finish"],
                }
            )
        self.model.most = max(self.model.most, len(steps))
        return steps

    def remove(self, number: int) -> None:
        del self.rows[number]

    def info(self) -> dict[str, int]:
        return {"cache_bytes": sum(row["limit"] for row in self.rows.values())}

    def why_not_finite(self) -> str:
        return "a weight is to blame"


class FakeDecoder:
    """A core for `Generator`: a table says what follows, or else something that looks random."""

    def __init__(self, columns: int, follows: dict[int, int] | None = None) -> None:
        self.columns, self.follows = columns, follows or {}
        self.sessions: list[FakeSession] = []
        self.computed = self.most = 0  # prompt tokens run, sequences of the largest step
        self.broken = False

    def scores(self, ids: list[int]) -> np.ndarray:
        scores = np.random.RandomState(hash(tuple(ids)) % (1 << 32)).standard_normal(self.columns)
        if ids[-1] in self.follows:
            scores[self.follows[ids[-1]]] = 9.0
        return scores

    @property
    def outputs(self) -> dict[str, tuple[str, int]]:
        return {
            "logits": ("tokens", self.columns),
            "next_logits": ("sequences", self.columns),
        }

    def info(self) -> dict[str, Any]:
        return {"device": "cpu", "dtype": "float32"}


CHAT = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def make_generator(
    folder: Path,
    follows: dict[int, int] | None = None,
    *,
    config: dict[str, Any] | None = None,
    files: dict[str, Any] | None = None,
    tokenizer: bool = True,
    usual: int | None = 200,
) -> Generator:
    """A Generator over a fake core: `_core.Session` has to be `FakeSession`."""
    backend = make_byte_level()
    if tokenizer:
        backend.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "</s>", "bos_token": "<s>", "chat_template": CHAT}
    for name, value in ({"tokenizer_config.json": settings} | (files or {})).items():
        (folder / name).write_text(json.dumps(value))
    config = {"model_type": "llama", "eos_token_id": 1} | (config or {})
    generation = (files or {}).get("generation_config.json", {})
    checkpoint = Checkpoint(
        "fake", folder, config, "LlamaForCausalLM", "generate", generation=generation
    )
    core: Any = FakeDecoder(backend.get_vocab_size(), follows)
    return Generator(core, checkpoint, TokenizerFiles(folder, config, usual=usual))
