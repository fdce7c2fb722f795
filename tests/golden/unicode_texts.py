# SPDX-License-Identifier: Apache-2.0
"""Texts that are hard on a tokenizer: the same ones for the same seed, in any Python."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = (Path(__file__).resolve().parent / "corpus256.txt").read_text("utf-8").split()

# Written out, each for something that went wrong somewhere.
CHOSEN = [
    "",
    " ",
    "   ",
    "\t",
    "\n",
    " \n\t ",
    "\u00a0",
    "\u3000",
    "a",
    " a",
    "  a",
    "a ",
    "a  ",
    "\ta\n",
    "a\tb\nc\rd\r\ne",
    "a\u00a0b\u2003c\u200bd\u2028e\u2029f",
    "line\n\n\nbreaks   and  gaps",
    "\u2581a \u2581 b\u2581",
    "[CLS] [SEP] [PAD] [UNK] [MASK]",
    "a[MASK]b",
    "a [MASK] b",
    "a  [MASK]  b ",
    "[MASK][MASK]",
    "[MASK",
    "[mask] [Mask]",
    "<s></s><unk><pad>",
    "\x00",
    "a\x00b",
    "\x01\x02\x07\x08\x1b\x7f",
    "\ufeffmarked",
    "e\u0301 \u00e9 E\u0301\u0323 \u1e69 s\u0323\u0307",
    "\u0301 alone and first",
    "a" + "\u0300\u0301\u0302" * 40,
    "\uff28\uff45\uff4c\uff4c\uff4f\u3000\uff17\uff18\uff01",
    "\ufb01ne \ufb02ow \u00bd \u2026 \u2122 \u2460 \u33a1",
    "\u017f\u0130\u0131\u00df\u1e9e \u03a3\u03c3\u03c2",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f600",
    "\U0001f3f3\ufe0f\u200d\U0001f308 flag",
    "\U0001f44d\U0001f3fd\U0001f44d \U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 1\ufe0f\u20e3",
    "\u5317\u4eac\u548c\u6771\u4eac\u3068\u3072\u3089\u304c\u306a",
    "\u30ab\u30bf\u30ab\u30ca \uff76\uff9e",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05b4\u05d1\u05b0\u05e8\u05b4\u05d9\u05ea",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22 \u1019\u103c\u1014\u103a\u1019\u102c",
    "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "\ue000 \U000f0000 \U0010ffff \ufffe \ufffd",
    "don't can't it's -- 'quoted' \u201cquoted\u201d \u2018so\u2019",
    "(a,b;c) [x] {y} <z> a_b #1 $2 50%",
    "!!!???...,,,",
    "3.14159 1,000,000 0x1F 1e-7 2024-01-01T00:00:00Z",
    "https://example.org/a?b=c&d=%20#e me@example.org @me #you C:\\dir\\file",
    "x" * 300,
    "supercalifragilistic" * 30,
    "\u00e9" * 200,
    "\U0001f600" * 100,
    " a" * 150,
    "CamelCase UPPER lower MiXeD \u00c0\u00c9\u00ce",
]

# Scripts and other ranges that random characters are drawn from.
_RANGES = [
    (0x20, 0x7E),
    (0xA0, 0xFF),
    (0x100, 0x24F),
    (0x300, 0x36F),
    (0x370, 0x3FF),
    (0x400, 0x4FF),
    (0x590, 0x6FF),
    (0x900, 0x97F),
    (0xE00, 0xE7F),
    (0x1100, 0x11FF),
    (0x1E00, 0x1FFF),
    (0x2000, 0x206F),
    (0x2070, 0x218F),
    (0x2200, 0x27BF),
    (0x3000, 0x30FF),
    (0x4E00, 0x4FFF),
    (0xAC00, 0xAFFF),
    (0xFB00, 0xFDFF),
    (0xFE00, 0xFFEF),
    (0x1F300, 0x1F6FF),
    (0x0, 0x1F),
    (0x0, 0xD7FF),
    (0xE000, 0x10FFFF),
]
_SPACES = [" ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "\r\n", "   ", ""]
_SPECIAL = ["[MASK]", "[CLS]", "[SEP]", "[UNK]", "[PAD]", "<ent>", "\u2581", "\u200d", "\ufe0f"]


def _word(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.5:
        return draw.choice(WORDS)
    if kind < 0.6:
        return draw.choice(WORDS).upper()
    if kind < 0.68:
        return draw.choice(_SPECIAL)
    if kind < 0.78:  # letters with marks
        return "".join(
            c + draw.choice("\u0300\u0301\u0308\u0327\u0323") for c in draw.choice(WORDS)
        )
    low, high = draw.choice(_RANGES)
    return "".join(chr(draw.randint(low, high)) for _ in range(draw.randint(1, 6)))


def texts(count: int, seed: int = 0) -> list[str]:
    """Return `count` texts: the chosen ones, then random ones of 1 to 12 words."""
    draw = random.Random(seed)
    found = CHOSEN[:count]
    while len(found) < count:
        words = [_word(draw) + draw.choice(_SPACES) for _ in range(draw.randint(1, 12))]
        found.append(draw.choice(["", "", " ", "  "]) + "".join(words))
    return found
