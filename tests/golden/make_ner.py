# SPDX-License-Identifier: Apache-2.0
"""Make examples/ner: a small DeBERTa that finds people, places and organisations in English.

It is trained for some minutes on sentences that this file writes. Most names in them are made of
syllables, a new one each time, so that the model has to go by how a name looks and by what stands
around it, and finds names that it has never seen. Needs torch and transformers.
"""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import tiny
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import UnigramTrainer
from torch.nn import functional

FOLDER = Path(__file__).resolve().parent / "examples" / "ner"
LABELS = ["O"] + [f"{tag}-{kind}" for kind in ("PER", "LOC", "ORG", "MISC") for tag in "BI"]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
STEPS, BATCH, PIECES = 1200, 32, 1100


def words_of(text: str) -> list[str]:
    """Return the words of a list that is written as text."""
    return text.split()


GIVEN = words_of(
    """Anna Ben Clara David Elif Farid Grace Hugo Ines Jan Karim Lucía Marie Noah Olga Pedro Rosa
Samir Tomás Uma Viktor Wei Yusuf Zoë José François Jürgen Åsa Łukasz Nuno Siobhán Thi Amara Chidi
Kofi Mei Ravi Priya Hiro Yuki Ivan Elena Peter Paul Sarah Laura John Mary Robert Alice
Emma Liam Mia Lukas Sofia Mateo Giulia Luca Ingrid Lars Astrid Nils Katarzyna Piotr Dmitri Natasha
Ayşe Mehmet Fatima Omar Leila Hassan Aisha Kwame Ngozi Sanjay Deepa Kenji Akira Min Jun Carlos
Diego Camila Beatriz João Inês Pierre Camille Louis Hannah Tobias Greta Werner Björn Sigrid"""
)
FAMILY = words_of(
    """Smith Jones García Müller Rossi Dubois Novák Kowalski Andersen Jansen Silva Costa Ivanov
Petrov Tanaka Suzuki Chen Wang Nguyen Khan Singh Patel Okafor Mensah Haddad Cohen Levy Brown Taylor
Núñez Lefèvre Strauß Sørensen Björk Öztürk Dvořák Horváth Popescu
Williams Johnson Miller Davis Wilson Anderson Thomas Moore Martin Lee Clark Lewis Walker Hall Allen
Young Wright Scott Green Baker Adams Nelson Carter Mitchell Roberts Turner Phillips Campbell Parker
Schmidt Fischer Weber Wagner Becker Hoffmann Bianchi Ferrari Esposito Moreau Laurent Fournier Girard
González Rodríguez Fernández López Martínez Sánchez Pérez Gómez Santos Oliveira Pereira Yamamoto"""
)
CITIES = words_of(
    """Paris Rome Madrid Vienna Cairo London Berlin Tokyo Delhi Lagos Lima Quito Kyiv Oslo Malmö
Zürich Bogotá Genève Kraków Łódź Ankara Boston Chicago Denver Seattle Dublin Geneva Lisbon Prague
France Spain Italy Kenya Japan India Brazil Canada Norway Poland Turkey Egypt Peru Chile Texas
Bavaria Scotland Europe Africa"""
)
CITIES += ["New York", "Los Angeles", "Buenos Aires", "Hong Kong", "San José", "Cape Town"]
CITIES += ["New Zealand", "South Korea", "Costa Rica", "the United States", "the Netherlands"]
PEOPLES = words_of(
    """French Spanish Italian German Japanese Indian Brazilian Canadian Norwegian Polish Turkish
Egyptian Peruvian Kenyan English Dutch Greek Chinese Korean European African Swedish
Portuguese Danish Finnish Russian Mexican American Australian Irish Scottish Welsh Czech Hungarian
Romanian Bulgarian Serbian Croatian Israeli Iranian Iraqi Nigerian Ghanaian Moroccan Thai
Vietnamese Argentine Chilean Cuban Icelandic Swiss Austrian Belgian"""
)
FIELDS = words_of("Steel Motors Energy Media Air Water Data Paper Foods Bank Insurance Software")
ENDS = [*words_of("Inc. Ltd Group Labs Corporation Holdings Partners Systems"), "& Sons"]
THINGS = words_of("physics medicine law economics history music chemistry design biology trade")
EVENTS = ["Cup", "Prize", "Festival", "Open", "Marathon", "Award", "Games", "Summit"]
MONTHS = words_of("January March April May June July September October November December")
WEEKDAYS = words_of("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
JOBS = words_of("engineer doctor singer minister painter lawyer professor teacher director baker")
ROLES = ["chief executive", "chairman", "spokeswoman", "president", "founder", "head coach"]
GOODS = words_of("bridges cars maps shoes novels batteries bicycles engines chairs songs")

ONSETS = words_of("b c d f g h j k l m n p r s t v w z br ch dr fr gr kl kr pl sh sk st th tr")
VOWELS = words_of("a e i o u a e i o ai ei ou ia á é í ö ü ø å")
CODAS = ["", "", "", "l", "n", "r", "s", "t", "m", "k", "nd", "rt", "ns", "ß"]
PLACE_ENDS = ["burg", "ville", "ton", "stad", "grad", "land", "ia", "mouth", "ford", "ik", "pur"]


ROOTS = words_of(
    """Wood Stone Black White Green Good Hill King Hop Gold Love Bell Bar Car Har Mil Wil Ford West
Nor Sand Blum Stein Fern Mont Castel Bern Rich Hend Ander Ols Peter Wat Rob Ham Land Whit Turn"""
)
ENDINGS = words_of(
    """son sen man berg stein ton ley ez ov ova ini elli sky ski ić eau ard ell escu ace er per ing
wood well opoulos sson nen ko enko yan idze"""
)
WORDS = words_of(
    """nurse sister brother house street river market window story letter winter summer morning idea
question answer plan price road school bridge garden kitchen teacher student worker farmer pilot cat
dog mat tree machine number colour music dinner news weather family friend nobody everybody somebody
founded bought sold cared rained snowed walked talked asked answered changed began ended slowly"""
)


def common(r: random.Random) -> str:
    """Return a word that is no name."""
    return r.choice(WORDS) if r.random() < 0.5 else made(r, 1, 3).lower()


def made(r: random.Random, least: int = 1, most: int = 3) -> str:
    """Return a name that nobody has."""
    if r.random() < 0.3:
        name = r.choice(ROOTS) + r.choice([*ENDINGS, *(root.lower() for root in ROOTS)])
        return name if r.random() < 0.6 else name + r.choice(ENDINGS)
    parts = [r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS)]
    parts += [
        r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS)
        for _ in range(r.randint(least, most) - 1)
    ]
    return "".join(parts).capitalize()


def given(r: random.Random) -> str:
    name = r.choice(GIVEN) if r.random() < 0.4 else made(r, 1, 3)
    return f"{name}-{r.choice(GIVEN)}" if r.random() < 0.05 else name


def family(r: random.Random) -> str:
    name = r.choice(FAMILY) if r.random() < 0.3 else made(r, 1, 3)
    prefix = r.choice(["van ", "de ", "O'", "Mc", "von ", "al-", "da "])
    return prefix + name if r.random() < 0.1 else name


def person(r: random.Random) -> str:
    """Return one to three names."""
    pattern = r.random()
    if pattern < 0.2:
        return family(r) if r.random() < 0.5 else given(r)
    middle = r.choice(["", "", "", "", f" {r.choice('ABCDEFGHJKLMPRSTW')}.", f" {given(r)}"])
    return f"{given(r)}{middle} {family(r)}"


def place(r: random.Random) -> str:
    """Return a city, a country or a region, real or made up."""
    pattern = r.random()
    if pattern < 0.4:
        return r.choice(CITIES)
    name = made(r, 1, 2) + r.choice(PLACE_ENDS) if r.random() < 0.5 else made(r, 2, 3)
    if pattern < 0.55:
        first = ["San ", "New ", "Saint ", "Mount ", "Lake ", "North ", "São ", "Port ", "El "]
        return r.choice(first) + name
    return name


def organisation(r: random.Random) -> str:
    """Return a company, a university, a club or an office."""
    name, town = made(r), place(r)
    patterns = [
        f"{name} {r.choice(FIELDS)}",
        f"{name} {r.choice(ENDS)}",
        f"{name} {r.choice(FIELDS)} {r.choice(ENDS)}",
        f"{family(r)} & {family(r)}",
        f"University of {town}",
        f"{town} University",
        f"{name} Institute of {r.choice(THINGS).capitalize()}",
        f"Bank of {town}",
        f"{town} Airlines",
        f"FC {town}",
        f"{name} United",
        f"Ministry of {r.choice(THINGS).capitalize()}",
        "".join(r.choice("ABCDEFGHIKLMNOPRSTUVW") for _ in range(r.randint(3, 4))),
        name,
        name,
        r.choice(["Siemens", "Toyota", "Airbus", "UNESCO", "Nokia", "Reuters", "NASA", "Samsung"]),
    ]
    return r.choice(patterns).replace("of the ", "of ").replace("the ", "")


def other(r: random.Random) -> str:
    """Return an event or a prize."""
    name = r.choice([made(r), family(r), r.choice(PEOPLES), "World", "European"])
    return f"{name} {r.choice(EVENTS)}"


TEMPLATES = """
{P} lives in {L}.
{P} lives in {L} and works for {O}.
{P} met {P} in {L}.
{P} and {P} met in {L}.
{P} was born in {L} on {date}.
{P} was born on {date} in {L}.
{P}, who was born in {L}, is a {job}.
{P} flew from {L} to {L}.
{P} flew from {L} to {L} to meet {P}.
{P} flew from {L} to {L} to meet {P} of {O}.
{P} moved from {L} to {L} in {year}.
{P} joined {O} in {year}.
{P} joined {O} as {role} in {year}.
{P} works at {O} in {L}.
{P} works as a {job} at {O}.
{P} studied {thing} at {O} before moving to {L}.
{P} studied {thing} at {O}.
{P}, {role} of {O}, said so on {day}.
"{speech}", said {P}, the {role} of {O}.
"{speech}", {P} told {O} on {day}.
The {N} {job} {P} won the {M} in {year}.
The {N} {job} {P} lives in {L}.
{P} won the {M}.
{P} won the {M} in {L} in {year}.
The {M} takes place in {L} every year.
The {M} was won by {P} of {O}.
{P} speaks {N} and {N}.
They speak {N} in {L}.
The {N} government sent {P} to {L}.
{O} makes {goods} in {L}.
{O} is a {N} company.
{O} is based in {L}.
{O} bought {O} for {number} million euros.
{O} opened an office in {L}, {L}.
{O} opened a factory in {L} in {year}.
{O} named {P} as its new {role}.
{O} shares fell {number} percent on {day}.
{O} and {O} signed a contract in {L}.
{O} sells {goods} to {O}.
{O} beat {O} {number}-{number} on {day}.
In {L} it rains in {month}.
It rains in {L}.
The train from {L} to {L} is late.
We visited {L} and {L} in {month}.
We went to {L} with {P}.
Yesterday {P} wrote to {P}.
Dr. {P} teaches {thing} at {O}.
Mr. {P} and Mrs. {P} live in {L}.
President {P} visited {L} on {day}.
Who is {P}?
Where is {L}?
Does {P} work for {O}?
The people of {L} voted on {day}.
The mayor of {L}, {P}, opened the {M}.
On {day}, {P} called {P} from {L}.
In {year}, {O} moved its offices to {L}.
Last year {O} made {goods} worth {number} million dollars.
The {w} in {L} was {w}, said {P}.
My {w} works as a {w} in {L}.
The {w} {w} on the {w} and {w} {w}.
The {w} was {w}, {P} {w}.
Who {w} {O}?
Who {w} {P}?
Why did the {w} {w}?
{P} {w} the {w} of {L}.
{P} {w} in {L}.
{P} {w} for {O}.
{O} {w} {number} {w} in {L}.
{O} {w} the {w} of {O}.
In {L} the {w} {w}.
A {w} of {P} {w} the {w}.
This {w} is {w} and the {w} is {w}.
Her {w}, his {w} and their {w} {w} in {month}.
Some {w} {w}; others {w} at the {w}.
The {N} {w} {P} {w} the {M}.
The {N} {w} {w} in {L}.
The weather was cold and the meeting was long.
The {job} bought {goods} on {day}.
She reads the report and he writes the letter in {month}.
My friends and I like {thing}.
He and I, who never agree, read the same books.
Why did they leave so early?
After the match the team went home; it was late.
The new law is good for schools, he said on {day}.
Nobody knows why the {job} was late.
According to {O}, {P} is in {L}.
According to {P}, the {goods} are from {L}.
{P} wrote a book about {L}.
{P}'s {job} lives near {L}.
{L}'s mayor met {P}.
{O}'s {role} is {P}.
Both {P} ({O}) and {P} ({O}) played in {L}.
{P}, {P} and {P} founded {O} in {L}.
""".strip().splitlines()
SPEECH = ["We are ready", "It is a good year", "Nobody was hurt", "This is only the beginning"]
TAGS = {"P": "PER", "L": "LOC", "O": "ORG", "M": "MISC", "N": "MISC"}


def fill(r: random.Random, slot: str) -> str:
    """Return a text for a slot of a template."""
    words = {
        "P": person,
        "L": place,
        "O": organisation,
        "M": other,
        "N": lambda r: r.choice(PEOPLES),
        "job": lambda r: r.choice(JOBS) if r.random() < 0.6 else common(r),
        "role": lambda r: r.choice(ROLES),
        "thing": lambda r: r.choice(THINGS),
        "goods": lambda r: r.choice(GOODS),
        "day": lambda r: r.choice(WEEKDAYS),
        "month": lambda r: r.choice(MONTHS),
        "year": lambda r: str(r.randint(1850, 2030)),
        "number": lambda r: str(r.randint(0, 900)),
        "date": lambda r: f"{r.randint(1, 28)} {r.choice(MONTHS)} {r.randint(1850, 2020)}",
        "w": common,
        "speech": lambda r: r.choice(SPEECH),
    }
    return words[slot](r)


def sentence(r: random.Random) -> tuple[str, list[tuple[int, int, str]]]:
    """Return a sentence and its entities: start, end, kind."""
    text, spans, last = "", [], 0
    template = r.choice(TEMPLATES)
    for match in re.finditer(r"\{(\w+)\}", template):
        text += template[last : match.start()]
        word = fill(r, match[1])
        if kind := TAGS.get(match[1]):
            inner = word.removeprefix("the ")
            start = len(text) + len(word) - len(inner)
            spans.append((start, start + len(inner), kind))
        text, last = text + word, match.end()
    text += template[last:]
    if text[0].islower():
        text = text[0].upper() + text[1:]
    return text, spans


def draw(r: random.Random) -> tuple[str, list[tuple[int, int, str]]]:
    """Return one sentence, or two."""
    text, spans = sentence(r)
    if r.random() < 0.3:
        more, shifted = sentence(r)
        spans += [(a + len(text) + 1, b + len(text) + 1, kind) for a, b, kind in shifted]
        text = f"{text} {more}"
    return text, spans


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Return a unigram tokenizer of the kind that DeBERTa v3 has."""
    trainer = UnigramTrainer(
        vocab_size=PIECES,
        special_tokens=SPECIAL,
        unk_token="[UNK]",
        show_progress=False,
        initial_alphabet=sorted({c for text in texts for c in text}),
    )
    tokenizer = Tokenizer(Unigram())
    space = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    tokenizer.normalizer = normalizers.Sequence(
        [space, normalizers.NFC(), normalizers.Strip(left=False, right=True)]
    )
    # Words first, so that offsets leave out the spaces.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    mask = AddedToken("[MASK]", normalized=False, special=True)
    tokenizer.add_special_tokens([mask])
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return tokenizer


def labels_of(encoding: object, spans: list[tuple[int, int, str]]) -> list[int]:
    """Return a label for each token; special tokens count as outside."""
    labels = []
    for start, end in encoding.offsets:  # type: ignore[attr-defined]
        label = "O"
        for first, last, kind in spans:
            if start < last and end > first:
                label = f"{'B' if start <= first else 'I'}-{kind}"
        labels.append(LABELS.index(label))
    return labels


def main() -> None:
    """Train the model and write its folder."""
    r = random.Random("ner")
    torch.manual_seed(0)
    tokenizer = make_tokenizer([draw(r)[0] for _ in range(8000)])
    config = transformers.DebertaV2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=320,
        max_position_embeddings=128,
        relative_attention=True,
        position_buckets=16,
        pos_att_type="p2c|c2p",
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        pooler_hidden_size=128,
        hidden_dropout_prob=0.05,
        attention_probs_dropout_prob=0.05,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    model = transformers.DebertaV2ForTokenClassification(config).train()
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    for step in range(STEPS):
        texts, spans = zip(*[draw(r) for _ in range(BATCH)], strict=True)
        encodings = tokenizer.encode_batch(list(texts))
        mask = torch.tensor([e.attention_mask for e in encodings])
        labels = torch.tensor(
            [labels_of(e, s) for e, s in zip(encodings, spans, strict=True)]
        ).masked_fill(mask == 0, -100)
        logits = model(torch.tensor([e.ids for e in encodings]), mask).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}, loss {loss.item():.4f}", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    tiny.save(model.eval().to(torch.float16), FOLDER)
    tokenizer.no_padding()
    tokenizer.save(str(FOLDER / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "DebertaV2Tokenizer",
        "model_max_length": 128,
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "sep_token": "[SEP]",
        "cls_token": "[CLS]",
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
    }
    tiny.write_json(FOLDER / "tokenizer_config.json", settings)


if __name__ == "__main__":
    main()
