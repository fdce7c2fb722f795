# SPDX-License-Identifier: Apache-2.0
"""Make examples/: the tiny models that docs/tasks.md and docs/cli.md run, one for each kind of use.

Each is trained for half a minute on a few patterns of sentences, so that what it says makes sense
within them. Needs torch and transformers.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
import torch
import transformers
from torch.nn import functional

FOLDER = Path(__file__).resolve().parent / "examples"
STEPS, BATCH = 1500, 64

PEOPLE = ["Ada Lovelace", "Grace Hopper", "Alan Turing", "Emmy Noether"]
CAPITALS = {
    "Paris": "France",
    "Oslo": "Norway",
    "Rome": "Italy",
    "Madrid": "Spain",
    "Vienna": "Austria",
    "Cairo": "Egypt",
}
INSTRUMENTS = ["piano", "violin", "flute", "harp"]
TOPICS = {
    "sports": ["match", "team", "goal", "coach"],
    "politics": ["vote", "senate", "election", "minister"],
    "cooking": ["soup", "oven", "recipe", "chef"],
}
GOOD, BAD = ["great", "moving", "funny", "clever"], ["dull", "awful", "boring", "slow"]
TOOLS = {
    "It rains": "an umbrella",
    "The soup is hot": "a spoon",
    "A nail is loose": "a hammer",
    "The room is dark": "a lamp",
}

Drawn = tuple[Any, Any]  # what the model reads, and what it should say


def draw_classify(r: random.Random) -> Drawn:
    """Praise or blame, at times with a "not"."""
    good, negated = r.random() < 0.5, r.random() < 0.4
    word = r.choice(GOOD if good != negated else BAD)
    patterns = ["A {} film.", "The film is {}.", "I found the story {}.", "The cast was {}!"]
    return r.choice(patterns).format(f"not {word}" if negated else word), int(good)


def about(r: random.Random, topic: str) -> str:
    """A sentence of this topic."""
    patterns = ["The {} was long.", "We talked about the {}.", "The {} and the {} surprised us."]
    return r.choice(patterns).format(*r.sample(TOPICS[topic], 2))


def draw_entail(r: random.Random) -> Drawn:
    """A sentence, and what it is said to be about."""
    topic, named = r.choice([*TOPICS]), r.choice([*TOPICS])
    return (about(r, topic), f"This example is {named}."), int(topic == named)


def draw_rank(r: random.Random) -> Drawn:
    """A question, and a sentence of its topic or of another."""
    topic, other = r.choice([*TOPICS]), r.choice([*TOPICS])
    return (f"Who knows about the {r.choice(TOPICS[topic])}?", about(r, other)), topic == other


def draw_tag(r: random.Random) -> Drawn:
    """People and places, and where they are named."""
    patterns = ["{p} lives in {l}.", "{p} met {q} in {l}.", "In {l} it rains.", "We know {p}."]
    (p, q), place = r.sample(PEOPLE, 2), r.choice([*CAPITALS])
    text = r.choice(patterns).format(p=p, q=q, l=place)
    kinds = {p: 1, q: 1, place: 3}
    return text, [(m.span(), kinds[m[0]]) for m in re.finditer("|".join(kinds), text)]


def draw_ask(r: random.Random) -> Drawn:
    """Who lives where and plays what, and a question about it."""
    person, place, thing = r.choice(PEOPLE), r.choice([*CAPITALS]), r.choice(INSTRUMENTS)
    context = f"{person} lives in {place} and plays the {thing}."
    question, answer = r.choice(
        [
            (f"Where does {person} live?", place),
            (f"What does {person} play?", thing),
            (f"Who plays the {thing}?", person),
            (f"Who lives in {place}?", person),
        ]
    )
    start = context.index(answer)
    return (question, context), (start, start + len(answer))


def draw_fill(r: random.Random) -> Drawn:
    """Capitals and their countries, with masks in their places."""
    pair = r.choice([*CAPITALS.items()])
    shown = r.choice([("<mask>", pair[1]), (pair[0], "<mask>"), ("<mask>", "<mask>")])
    pattern = r.choice(["{} is the capital of {}.", "The road to {} in {} is long."])
    return pattern.format(*shown), pattern.format(*pair)


def draw_choose(r: random.Random) -> Drawn:
    """A need and three tools, one of them the right one."""
    need = r.choice([*TOOLS])
    tools = r.sample([*TOOLS.values()], 3)
    if TOOLS[need] not in tools:
        tools[r.randrange(3)] = TOOLS[need]
    prompt = f"{need}, so {r.choice(PEOPLE)} takes"
    return [(prompt, tool) for tool in tools], tools.index(TOOLS[need])


Encode = Callable[[list[Any]], tuple[Any, dict[str, torch.Tensor]]]  # encodings, and as arrays


def label_loss(model: Any, encode: Encode, read: list[Any], wanted: list[Any]) -> torch.Tensor:
    logits = model(**encode(read)[1]).logits
    if logits.shape[1] == 1:
        target = torch.tensor(wanted, dtype=torch.float32)
        return functional.binary_cross_entropy_with_logits(logits[:, 0], target)
    return functional.cross_entropy(logits, torch.tensor(wanted))


def tag_loss(model: Any, encode: Encode, read: list[Any], wanted: list[Any]) -> torch.Tensor:
    encodings, inputs = encode(read)
    labels = torch.zeros(inputs["input_ids"].shape, dtype=torch.long)
    for row, spans in enumerate(wanted):
        for (start, end), kind in spans:
            for place, (begin, stop) in enumerate(encodings[row].offsets):
                if start <= begin < stop <= end:
                    labels[row, place] = kind + (begin > start)
    return functional.cross_entropy(model(**inputs).logits.flatten(0, 1), labels.flatten())


def ask_loss(model: Any, encode: Encode, read: list[Any], wanted: list[Any]) -> torch.Tensor:
    encodings, inputs = encode(read)
    ends = [(start, end - 1) for start, end in wanted]
    tokens = [
        [e.char_to_token(place, 1) for place in pair]
        for e, pair in zip(encodings, ends, strict=True)
    ]
    first, last = torch.tensor(tokens).T
    got = model(**inputs)
    loss = functional.cross_entropy
    return loss(got.start_logits, first) + loss(got.end_logits, last)


def fill_loss(model: Any, encode: Encode, read: list[Any], wanted: list[Any]) -> torch.Tensor:
    inputs, whole = encode(read)[1], encode(wanted)[1]["input_ids"]
    masked = inputs["input_ids"] != whole
    return functional.cross_entropy(model(**inputs).logits[masked], whole[masked])


def choose_loss(model: Any, encode: Encode, read: list[Any], wanted: list[Any]) -> torch.Tensor:
    inputs = encode([pair for pairs in read for pair in pairs])[1]
    grouped = {name: value.unflatten(0, (len(read), -1)) for name, value in inputs.items()}
    return functional.cross_entropy(model(**grouped).logits, torch.tensor(wanted))


SEQUENCE = "MPNetForSequenceClassification"
# Folder, class, patterns, loss and labels.
EXAMPLES: list[tuple[str, str, Callable[[random.Random], Drawn], Any, list[str]]] = [
    ("classify", SEQUENCE, draw_classify, label_loss, ["negative", "positive"]),
    ("entail", SEQUENCE, draw_entail, label_loss, ["contradiction", "entailment"]),
    ("rank", SEQUENCE, draw_rank, label_loss, ["relevant"]),
    (
        "tag",
        "MPNetForTokenClassification",
        draw_tag,
        tag_loss,
        ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    ),
    ("ask", "MPNetForQuestionAnswering", draw_ask, ask_loss, []),
    ("fill", "MPNetForMaskedLM", draw_fill, fill_loss, []),
    ("choose", "MPNetForMultipleChoice", draw_choose, choose_loss, []),
]


def texts_in(value: Any) -> list[str]:
    """Every text within nested lists."""
    if isinstance(value, str):
        return [value]
    return [text for part in value for text in texts_in(part)] if hasattr(value, "__iter__") else []


def main() -> None:
    """Train each model and write its folder."""
    for name, head, draw, loss_of, labels in EXAMPLES:
        r = random.Random(name)
        torch.manual_seed(0)
        tokenizer = tiny.make_tokenizer(texts_in([draw(r)[0] for _ in range(2000)]), 400)
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        tiny.write_tokenizer_config(folder)
        tokenizer.no_truncation()
        tokenizer.enable_padding(pad_id=tiny.PAD, pad_token="<pad>")

        def encode(read: list[Any]) -> tuple[Any, dict[str, torch.Tensor]]:
            encodings = tokenizer.encode_batch(read)  # noqa: B023
            ids = torch.tensor([e.ids for e in encodings])
            mask = torch.tensor([e.attention_mask for e in encodings])
            return encodings, {"input_ids": ids, "attention_mask": mask}

        ids = {label: index for index, label in enumerate(labels)}
        names = {"id2label": dict(enumerate(labels)), "label2id": ids} if labels else {}
        config = tiny.mpnet_config(
            vocab_size=tokenizer.get_vocab_size(), hidden_dropout_prob=0.0, **names
        )
        model = getattr(transformers, head)(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
        for step in range(STEPS):
            drawn = [draw(r) for _ in range(BATCH)]
            loss = loss_of(model, encode, [x for x, _ in drawn], [y for _, y in drawn])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 500 == 499:
                print(f"{name}: step {step + 1}, loss {loss.item():.4f}")
        tiny.save(model.eval().to(torch.float16), folder)


if __name__ == "__main__":
    main()
