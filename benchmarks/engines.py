# SPDX-License-Identifier: Apache-2.0
"""trine and its rivals behind one face: texts or token ids in, sentence vectors or logits out.

Rivals read what `export` makes of the same checkpoint: for sentence vectors, mean pooling and
normalisation are part of the graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

CORPUS = Path(__file__).resolve().parent.parent / "tests" / "golden" / "corpus256.txt"
MAX_LENGTH = 384
BATCH = 32


class Engine(Protocol):
    """One way to run a folder."""

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Token ids [batch, length] to vectors or logits."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """Texts to vectors."""


class Trine:
    dtype = "float32"

    def __init__(self, folder: Path, threads: int) -> None:
        import trine

        self.model: Any = trine.load(folder, dtype=self.dtype, device="cpu", threads=threads)
        self.output = "sentence_embedding" if embeds(folder) else "logits"

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.model.forward(ids, mask, outputs=[self.output])[self.output]

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(texts)


class TrineInt8(Trine):
    """Matrices in int8; where a value or a feed-forward output is kept, bfloat16."""

    dtype = "int8"


class TrineBfloat16(Trine):
    dtype = "bfloat16"


class Padded(ABC):
    """What a runtime without a tokenizer of its own needs around it: sorted batches, padding."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tokenizer.json"
        self.tokenizer: Any = None

    @abstractmethod
    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Token ids [batch, length] to vectors or logits."""

    def encode(self, texts: list[str]) -> np.ndarray:
        if self.tokenizer is None:
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(self.file))
            self.tokenizer.enable_truncation(MAX_LENGTH)
            self.tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors: list[Any] = [None] * len(texts)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            encoded = self.tokenizer.encode_batch([texts[i] for i in part])
            ids = np.array([e.ids for e in encoded], np.int64)
            mask = np.array([e.attention_mask for e in encoded], np.int64)
            for i, vector in zip(part, self.run(ids, mask), strict=True):
                vectors[i] = vector
        return np.stack(vectors)


class OnnxRuntime(Padded):
    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime

        super().__init__(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(export(folder, "onnx")), options, providers=["CPUExecutionProvider"]
        )

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


class OpenVino(Padded):
    form = "openvino"
    precision: str | None = "f32"

    def __init__(self, folder: Path, threads: int) -> None:
        import openvino

        super().__init__(folder)
        config: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self.precision:
            config["INFERENCE_PRECISION_HINT"] = self.precision
        core = openvino.Core()
        model = core.read_model(str(export(folder, self.form)))
        self.compiled = core.compile_model(model, "CPU", config)

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        # A request per call: concurrent callers must not share one.
        request = self.compiled.create_infer_request()
        return request.infer({0: ids, 1: mask})[0].copy()


class OpenVinoDefault(OpenVino):
    """The precision that OpenVINO picks itself: bfloat16 where the processor has it."""

    precision = None


class OpenVinoInt8(OpenVino):
    """Weights and activations in int8, quantised by nncf after 64 of the corpus's texts."""

    form = "openvino-int8"
    precision = None


class SentenceTransformers:
    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        torch = self.torch
        with torch.no_grad():
            features = {
                "input_ids": torch.from_numpy(ids),
                "attention_mask": torch.from_numpy(mask),
            }
            return self.model.forward(features)["sentence_embedding"].numpy()

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(texts, batch_size=BATCH, show_progress_bar=False)


ENGINES = {
    "trine": Trine,
    "trine-bfloat16": TrineBfloat16,
    "trine-int8": TrineInt8,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "openvino-default": OpenVinoDefault,
    "openvino-int8": OpenVinoInt8,
    "sentence-transformers": SentenceTransformers,
}


def embeds(folder: Path) -> bool:
    """Whether this is a sentence-transformers folder."""
    return (folder / "modules.json").exists()


def quantize(folder: Path, model: Path, made: Path) -> None:
    """OpenVINO's static int8: ranges of activations from 64 texts."""
    import nncf
    import openvino
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    texts = CORPUS.read_text().splitlines()[::4]
    ids = [np.array([tokenizer.encode(text).ids], np.int64) for text in texts]
    quantized = nncf.quantize(
        openvino.Core().read_model(str(model)),
        nncf.Dataset([{"input_ids": each, "attention_mask": np.ones_like(each)} for each in ids]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(ids),
    )
    openvino.save_model(quantized, str(made), compress_to_fp16=False)


def export(folder: Path, kind: str) -> Path:
    """Make what a rival reads, once, in `build/rivals` of the working directory."""
    names = {"onnx": "model.onnx", "openvino": "model.xml", "openvino-int8": "int8.xml"}
    made = Path("build/rivals") / folder.name / names[kind]
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    if kind == "openvino-int8":
        quantize(folder, export(folder, "openvino"), made)
        return made
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, add_pooling_layer=False).float().eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.model(input_ids, attention_mask, return_dict=False)[0]
            weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, p=2, dim=1)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            classifier = AutoModelForSequenceClassification.from_pretrained(folder)
            self.model = classifier.float().eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids, attention_mask, return_dict=False)[0]

    module = (Pooled if embeds(folder) else Logits)()
    ids = torch.randint(5, 1000, (2, 24))
    mask = torch.ones_like(ids)
    mask[-1, 18:] = 0
    with torch.no_grad():
        if kind == "onnx":
            names = ["input_ids", "attention_mask"]
            axes = {name: {0: "batch", 1: "length"} for name in names} | {"vector": {0: "batch"}}
            torch.onnx.export(
                module,
                (ids, mask),
                str(made),
                input_names=names,
                output_names=["vector"],
                dynamic_axes=axes,
                opset_version=17,
                dynamo=False,
            )
        else:
            import openvino

            example = {"input_ids": ids, "attention_mask": mask}
            model = openvino.convert_model(module, example_input=example)
            for node in model.inputs:
                node.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
            model.validate_nodes_and_infer_types()
            openvino.save_model(model, str(made), compress_to_fp16=False)
    return made
