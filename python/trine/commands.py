# SPDX-License-Identifier: Apache-2.0
"""The subcommands of ``trine``: what each one's options are, and what it does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trine import command_io
from trine.cache_command import Cache
from trine.command import Command
from trine.generate_commands import Chat, Generate
from trine.serve_command import Serve

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class Embed(Command):
    """``trine embed``."""

    name = "embed"
    summary = "turn texts into vectors"
    example = 'trine embed --model demo --normalize "A first sentence." "Another one."'

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the options of `Embedder.encode`."""
        parser.add_argument("--prompt", metavar="TEXT", help="put before each text")
        parser.add_argument("--prompt-name", metavar="NAME", help="a prompt that the model names")
        parser.add_argument("--normalize", action="store_true", help="scale vectors to length one")
        parser.add_argument("--truncate-dim", type=int, metavar="N", help="keep N leading values")
        parser.add_argument(
            "--precision",
            default="float32",
            choices=["float32", "int8", "uint8", "binary", "ubinary"],
        )
        parser.add_argument(
            "--format",
            default="jsonl",
            choices=["jsonl", "npy"],
            help="jsonl: an object a text, with 'text' and 'embedding'; npy: one numpy array",
        )

    def run(self, options: Namespace) -> int:
        """Embed and write."""
        texts = command_io.read_texts(options)
        with command_io.load_model(options, "embed") as model:
            vectors = model.encode(
                texts,
                prompt=options.prompt,
                prompt_name=options.prompt_name,
                normalize_embeddings=options.normalize,
                truncate_dim=options.truncate_dim,
                precision=options.precision,
                batch_size=options.batch_size,
                show_progress_bar=command_io.wants_progress(options, len(texts)),
            )
        if options.format == "npy":
            _write_npy(options, vectors)
        else:
            rows = [_shortest(vector) for vector in vectors]
            pairs = zip(texts, rows, strict=True)
            command_io.write_lines(
                options, [{"text": text, "embedding": row} for text, row in pairs]
            )
        return 0


def _shortest(vector: Any) -> list[Any]:
    """Return numbers with as many digits as a float32 needs."""
    values = vector.tolist()
    return [float(f"{x:.9g}") for x in values] if vector.dtype.kind == "f" else values


def _write_npy(options: Namespace, vectors: Any) -> None:
    import numpy as np

    if options.output:
        with open(options.output, "wb") as file:  # noqa: PTH123
            np.save(file, vectors)
        return
    if sys.stdout.isatty():
        from trine import InputError

        raise InputError("--format npy is binary: give --output, or pipe it on")
    # A pipe cannot tell its position, which numpy's own writer for files asks for.
    import io

    buffer = io.BytesIO()
    np.save(buffer, vectors)
    sys.stdout.buffer.write(buffer.getbuffer())
    sys.stdout.buffer.flush()


class _Predict(Command):
    """A command that calls `predict` and writes a line for each input."""

    task: ClassVar[str]
    key: ClassVar[str]

    def keywords(self, options: Namespace) -> dict[str, Any]:
        """Return keywords of `predict` from the options."""
        del options
        return {}

    def parse(self, text: str) -> Any:
        """Turn a line into an input."""
        return text

    def run(self, options: Namespace) -> int:
        """Predict and write."""
        texts = command_io.read_texts(options)
        with command_io.load_model(options, self.task) as model:
            results = self.predict(
                model,
                [self.parse(text) for text in texts],
                options,
                batch_size=options.batch_size,
                show_progress=command_io.wants_progress(options, len(texts)),
            )
        pairs = zip(texts, results, strict=True)
        command_io.write_lines(options, [{"text": text, self.key: found} for text, found in pairs])
        return 0

    def predict(self, model: Any, inputs: list[Any], options: Namespace, **keywords: Any) -> Any:
        """Return one result per input."""
        return model.predict(inputs, **self.keywords(options), **keywords)


class Classify(_Predict):
    """``trine classify``."""

    name, task, key = "classify", "classify", "labels"
    summary = "label texts, or pairs of texts with a tab between them"
    example = 'trine classify --model MODEL --labels "sports,politics" "The match was a draw."'

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the options of `Classifier.predict` and `zero_shot`."""
        parser.add_argument("--top-k", type=int, metavar="K", help="labels to print; default all")
        parser.add_argument(
            "--function",
            choices=["sigmoid", "softmax", "none"],
            help="what makes scores of logits; by default what the model's config.json asks for",
        )
        parser.add_argument(
            "--labels", metavar="A,B,...", help="zero-shot: labels of your own, with an NLI model"
        )
        parser.add_argument(
            "--hypothesis-template", default="This example is {}.", metavar="TEXT", help="zero-shot"
        )
        parser.add_argument(
            "--multi-label", action="store_true", help="zero-shot: several labels may be true"
        )

    def parse(self, text: str) -> Any:
        """Split a pair at its tab."""
        first, tab, second = text.partition("\t")
        return (first, second) if tab else text

    def predict(self, model: Any, inputs: list[Any], options: Namespace, **keywords: Any) -> Any:
        """Classify, by the model's labels or by those given."""
        if options.labels is None:
            return model.predict(
                inputs, top_k=options.top_k, function_to_apply=options.function, **keywords
            )
        return model.zero_shot(
            inputs,
            options.labels,
            hypothesis_template=options.hypothesis_template,
            multi_label=options.multi_label,
            top_k=options.top_k,
            **keywords,
        )


class Tag(_Predict):
    """``trine tag``."""

    name, task, key = "tag", "tag", "entities"
    summary = "find entities in texts"
    example = 'trine tag --model MODEL --aggregation first "Ada Lovelace lived in London."'

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the options of `Tagger.predict`."""
        parser.add_argument(
            "--aggregation",
            default="simple",
            choices=["none", "simple", "first", "average", "max"],
            help="how tokens become entities",
        )
        parser.add_argument(
            "--stride", type=int, default=64, metavar="N", help="tokens that two windows share"
        )

    def keywords(self, options: Namespace) -> dict[str, Any]:
        """Pass on what `predict` knows."""
        return {"aggregation": options.aggregation, "stride": options.stride}


class Ask(_Predict):
    """``trine ask``."""

    name, task, key = "ask", "ask", "answers"
    summary = "answer a question from each text"
    example = 'trine ask --model MODEL --question "Who lived there?" "Ada lived in London."'

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the options of `Reader.predict`."""
        parser.add_argument(
            "--question", metavar="TEXT", help="by default each line is question, tab, context"
        )
        parser.add_argument("--top-k", type=int, default=1, metavar="K", help="answers to print")
        parser.add_argument(
            "--handle-impossible", action="store_true", help='offer "no answer", an empty text'
        )
        parser.add_argument(
            "--max-answer-len", type=int, default=15, metavar="N", help="most tokens of an answer"
        )

    def keywords(self, options: Namespace) -> dict[str, Any]:
        """Pass on what `predict` knows."""
        names = ("top_k", "handle_impossible", "max_answer_len")
        return {name: getattr(options, name) for name in names}

    def predict(self, model: Any, inputs: list[Any], options: Namespace, **keywords: Any) -> Any:
        """Make pairs of question and context, and ask."""
        from trine import InputError

        pairs = []
        for index, text in enumerate(inputs):
            question, tab, context = text.partition("\t")
            if options.question is None and not tab:
                raise InputError(f"input {index}: no --question, and no tab after one")
            pairs.append(
                (question, context) if options.question is None else (options.question, text)
            )
        return model.predict(pairs, **self.keywords(options), **keywords)


class Fill(_Predict):
    """``trine fill``."""

    name, task, key = "fill", "fill", "candidates"
    summary = "list candidates for each mask of each text"
    example = 'trine fill --model MODEL --top-k 3 "The capital of France is <mask>."'

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the options of `Filler.predict`."""
        parser.add_argument("--top-k", type=int, default=5, metavar="K", help="candidates a mask")
        parser.add_argument("--targets", metavar="A,B,...", help="score these words only")

    def keywords(self, options: Namespace) -> dict[str, Any]:
        """Pass on what `predict` knows."""
        targets = None if options.targets is None else options.targets.split(",")
        return {"top_k": options.top_k, "targets": targets}


class Info(Command):
    """``trine info``."""

    name = "info"
    summary = "describe a model"
    example = "trine info demo"
    takes_texts = False

    def run(self, options: Namespace) -> int:
        """Print one JSON object: a line, or on a terminal indented."""
        with command_io.load_model(options) as model:
            indent = 2 if command_io.is_terminal(sys.stdout) else None
            sys.stdout.write(json.dumps(model.info(), indent=indent, ensure_ascii=False) + "\n")
        return 0


class Verify(Command):
    """``trine verify``."""

    name = "verify"
    summary = "compare a model with reference outputs"
    example = "trine verify demo\n  trine verify MODEL\n  trine verify MODEL --reference file.npz"
    takes_texts = False

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the reference."""
        parser.add_argument(
            "--reference",
            metavar="FILE",
            help="an .npz with 'texts' or 'input_ids' and the outputs expected of them; "
            "'demo' has its own; without one other models are compared with plain loops in "
            "float32, a compiled file in its own dtype",
        )
        parser.add_argument("--json", action="store_true", help="print JSON lines")

    def run(self, options: Namespace) -> int:
        """Compare and print; 1 if anything differs too much."""
        from trine import verify

        with command_io.load_model(options) as model:
            if options.reference is not None or verify.has_reference(model):
                comparisons = verify.verify(model, options.reference)
            else:
                compiled = model.info()["source"].endswith(".trine")  # has a dtype of its own
                options.device, options.keep = "ref", None
                options.dtype = "auto" if compiled else "float32"
                with command_io.load_model(options) as plain:
                    comparisons = verify.verify_plainly(model, plain)
        for comparison in comparisons:
            line = json.dumps(comparison.as_dict()) if options.json else str(comparison)
            sys.stdout.write(line + "\n")
        return 0 if all(comparison.ok for comparison in comparisons) else 1


class Compile(Command):
    """``trine compile``."""

    name = "compile"
    summary = "write a model as one file that loads in milliseconds"
    example = "trine compile demo -o all-mpnet-base-v2.trine --dtype bfloat16"
    takes_texts = False

    def add_options(self, parser: ArgumentParser) -> None:
        """Add where to, and what for."""
        parser.add_argument(
            "-o", "--output", required=True, metavar="FILE", help="ends with .trine"
        )
        parser.add_argument("--task", help="by default what the model's files say")

    def run(self, options: Namespace) -> int:
        """Load, save and say what was written."""
        options.no_cache = True  # one file is enough
        with command_io.load_model(options, options.task) as model:
            model.save(options.output)
            row = {
                "file": options.output,
                "bytes": Path(options.output).expanduser().stat().st_size,
                **{key: model.info()[key] for key in ("task", "architecture", "dtype")},
            }
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return 0


class Bench(Command):
    """``trine bench``."""

    name = "bench"
    summary = "measure latency and throughput, beside the limit of the machine"
    example = "trine bench demo --threads 2 --profile"
    takes_texts = False

    def add_options(self, parser: ArgumentParser) -> None:
        """Add what to measure."""
        parser.add_argument(
            "--cases", default="1x16,1x128,1x384", help="batch x tokens, with commas between"
        )
        parser.add_argument("--rounds", type=int, default=20, metavar="N", help="runs of each case")
        parser.add_argument("--profile", action="store_true", help="print the time of every step")
        parser.add_argument(
            "--limit",
            type=float,
            nargs=2,
            metavar=("GFLOP/S", "GB/S"),
            help="what the device can by its data sheet; a processor's are measured",
        )
        parser.add_argument("--json", action="store_true", help="print JSON lines")

    def run(self, options: Namespace) -> int:
        """Measure and print."""
        from trine import bench

        cases = bench.parse_cases(options.cases)
        how = {"rounds": options.rounds, "profile": options.profile, "limit": options.limit}
        with command_io.load_model(options) as model:
            for line in bench.bench(model, cases, **how):
                sys.stdout.write((json.dumps(line) if options.json else bench.show(line)) + "\n")
                sys.stdout.flush()
        return 0


class Convert(Command):
    """``trine convert``."""

    name = "convert"
    summary = "write a Llama in Meta's layout, or in Hugging Face's"
    example = "trine convert Llama-3.2-1B/original Llama-3.2-1B-hf --to hf"
    takes_texts = False
    takes_model = False

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the two folders and the layout."""
        parser.add_argument("source", metavar="SOURCE", help="a folder in the other layout")
        parser.add_argument("target", metavar="TARGET", help="a folder that is empty or absent")
        parser.add_argument("--to", required=True, choices=["hf", "meta"], help="the layout")

    def run(self, options: Namespace) -> int:
        """Write the folder; what was assumed goes to standard error."""
        from trine.convert import convert

        for note in convert(options.source, options.target, to=options.to):
            sys.stderr.write(f"trine: {note}\n")
        return 0


COMMANDS: tuple[Command, ...] = (
    Embed(),
    Classify(),
    Tag(),
    Ask(),
    Fill(),
    Generate(),
    Chat(),
    Compile(),
    Info(),
    Verify(),
    Bench(),
    Serve(),
    Convert(),
    Cache(),
)
