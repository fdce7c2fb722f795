# SPDX-License-Identifier: Apache-2.0
"""Make csrc/text/unicode_tables.inc: what the `tokenizers` library knows of each character.

    python make_unicode_tables.py

The library is made of crates with tables of different Unicode versions, none of them this Python's.
So each property is asked of the library itself, of every code point, and compared with
`unicodedata`; the head of the result says where they differ. tests/python/test_text.py asks again.
"""

from __future__ import annotations

import struct
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHARACTERS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORY = {c: unicodedata.category(chr(c)) for c in CHARACTERS}
BLOCK = 64  # code points of a block of the two-stage table

# In the order of enum CharFlag.
FLAGS = [
    "space",
    "other",
    "nonspacing",
    "combining",
    "punctuation",
    "numeric",
    "letter",
    "number",
    "punct",
    "word",
    "onig_word",
    "decomposes",
    "decomposes_compat",
    "second",
    "not_nfc",
    "not_nfkc",
]
# In the order of enum Break.
BREAKS = [
    "Other",
    "Control",
    "Extend",
    "Zwj",
    "SpacingMark",
    "Prepend",
    "L",
    "V",
    "T",
    "Pictograph",
]


def charsmap(rules: dict[str, str]) -> bytes:
    """Return a SentencePiece table of a few rules: a double array with a block for each node."""
    texts, places = b"", {}
    for source, text in rules.items():
        places[source.encode()] = len(texts)
        texts += text.encode() + b"\0"
    units = [0] * 256
    nodes = [(b"", 0)]
    while nodes:
        prefix, at = nodes.pop()
        base = len(units)
        units += [0] * 256
        units[at] |= (at ^ base) << 10
        if prefix in places:
            units[at] |= 1 << 8
            units[base] = places[prefix] | 1 << 31
        labels = {k[len(prefix)] for k in places if k.startswith(prefix) and k != prefix}
        for label in labels:
            units[base ^ label] = label
            nodes.append((prefix + bytes([label]), base ^ label))
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + texts


def where(test: Callable[[str], bool]) -> set[int]:
    return {c for c in CHARACTERS if test(chr(c))}


def properties() -> dict[str, set[int]]:
    """Ask the library which characters have which property."""

    def bert(**on: bool) -> Callable[[str], str]:
        off = {"clean_text": False, "handle_chinese_chars": False, "lowercase": False}
        return normalizers.BertNormalizer(**(off | {"strip_accents": False} | on)).normalize_str

    def pieces(splitter: pre_tokenizers.PreTokenizer, count: int) -> set[int]:
        return where(lambda c: len(splitter.pre_tokenize_str(f"a{c}b")) == count)

    def expression(text: str) -> set[int]:
        splitter = pre_tokenizers.Split(Regex(text), "removed")
        return where(lambda c: splitter.pre_tokenize_str(f"\1{c}\1") != [(f"\1{c}\1", (0, 3))])

    clean, strip = bert(clean_text=True), bert(strip_accents=True)
    marks = normalizers.StripAccents().normalize_str
    words = pre_tokenizers.Whitespace()
    nfd, nfc = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    nfkd, nfkc = normalizers.NFKD().normalize_str, normalizers.NFKC().normalize_str
    return {
        "space": pieces(pre_tokenizers.WhitespaceSplit(), 2),
        "other": where(lambda c: clean(f"a{c}b") == "ab") | {9, 10, 13},
        "nonspacing": where(lambda c: strip(f"a{c}b") == "ab"),
        "combining": where(lambda c: marks(f"a{c}b") == "ab"),
        "punctuation": pieces(pre_tokenizers.Punctuation("isolated"), 3),
        "numeric": pieces(pre_tokenizers.Digits(True), 3),
        "letter": expression(r"\p{L}"),
        "number": expression(r"\p{N}"),
        "punct": expression(r"\p{P}"),
        "word": pieces(words, 1),
        "onig_word": expression(r"\w"),
        "decomposes": where(lambda c: nfd(c) != c),
        "decomposes_compat": where(lambda c: nfkd(c) != c),
        "not_nfc": where(lambda c: nfc(c) != c),
        "not_nfkc": where(lambda c: nfkc(c) != c),
    }


def compositions() -> dict[tuple[int, int], int]:
    """Return the pairs that NFC makes one character of; those of Hangul are computed."""
    nfc = normalizers.NFC().normalize_str
    found = {}
    for c in CHARACTERS:
        parts = unicodedata.decomposition(chr(c)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            pair = (int(parts[0], 16), int(parts[1], 16))
            if nfc("".join(map(chr, pair))) == chr(c):
                found[pair] = c
    return found


def combining_classes() -> dict[int, int]:
    """Ask in which order NFD puts two marks, one of a known class."""
    nfd = normalizers.NFD().normalize_str
    top, low = "\u0345", "\u0334"  # of the greatest and the least class
    known = {240: top}
    for c in CHARACTERS:
        kind, mark = unicodedata.combining(chr(c)), chr(c)
        if kind and kind not in known and nfd(mark) == mark and nfd(top + mark) == mark + top:
            known[kind] = mark
    found = {}
    for c in CHARACTERS:
        mark = chr(c)
        if nfd(mark) != mark:
            continue
        moves = nfd(top + mark) == mark + top, nfd(mark + low) == low + mark
        if not any(moves):
            continue
        # The greatest class that it does not go before is its own.
        found[c] = max(
            k for k, other in known.items() if nfd(f"a{other}{mark}") == f"a{other}{mark}"
        )
    return found


def breaks() -> tuple[dict[int, str], dict[str, set[int]]]:
    """Ask where graphemes end: one of up to five bytes becomes what its first character does.

    Of Unicode's rules only those can be asked, and are needed, that make such a difference; the
    pairs of regional indicators make none.
    """
    acute = "\u0301"
    rules = {"a": "b", acute: "Q", "\xa9": "Z", "\u0915": "K", "\uac00": "H", "\u1161": "V"}
    run = normalizers.Precompiled(charsmap(rules | {"\u11a8": "T"})).normalize_str

    def joined(before: str, behind: str) -> set[int]:
        return where(lambda c: run(before + c + behind + acute).endswith("Q"))

    after_a = where(lambda c: run("a" + c) == "b")
    prepend = joined("", "a")
    control = where(lambda c: run(c + acute + "\u0302").endswith("Q"))
    extend = joined("\xa9", "\u200d\xa9") & after_a - {0x200D}
    pictograph = joined("", "\u200d\xa9") - extend
    hangul = {c for c in CHARACTERS if 0xAC00 <= c < 0xD7A4}
    l_jamo = joined("", "\uac00") - prepend
    v_jamo = joined("\u1100", "\u1161") - prepend - l_jamo - hangul
    t_jamo = joined("\uac00", "\u11a8") - prepend - v_jamo - hangul
    found: dict[int, str] = {}
    for name, members in (
        ("SpacingMark", after_a - extend),
        ("Extend", extend),
        ("Zwj", {0x200D}),
        ("Control", control),
        ("Prepend", prepend),
        ("L", l_jamo),
        ("V", v_jamo),
        ("T", t_jamo),
        ("Pictograph", pictograph),
    ):
        found |= dict.fromkeys(members, name)
    virama, ka = "\u094d", "\u0915"
    consonant = joined("", virama + ka) - prepend
    linker = joined(ka, ka) - prepend
    conjunct = {
        "consonant": consonant,
        "linker": linker,
        "extend": joined(ka, virama + ka) - consonant - linker - prepend,
    }
    return found, conjunct


def differences(found: dict[str, set[int]], classes: dict[int, int]) -> list[str]:
    """Compare with `unicodedata`: lines for the head."""
    expected = {
        "space": {c for c in CHARACTERS if chr(c).isspace()} - {0x1C, 0x1D, 0x1E, 0x1F},
        "other": {c for c in CHARACTERS if CATEGORY[c] in ("Cc", "Cf", "Co")} | {0xFFFD},
        "nonspacing": {c for c in CHARACTERS if CATEGORY[c] == "Mn"},
        "combining": {c for c in CHARACTERS if CATEGORY[c][0] == "M"},
        "punctuation": {
            c for c in CHARACTERS if CATEGORY[c][0] == "P" or (c < 128 and CATEGORY[c][0] == "S")
        },
        "numeric": {c for c in CHARACTERS if CATEGORY[c][0] == "N"},
        "letter": {c for c in CHARACTERS if CATEGORY[c][0] == "L"},
        "number": {c for c in CHARACTERS if CATEGORY[c][0] == "N"},
        "punct": {c for c in CHARACTERS if CATEGORY[c][0] == "P"},
        "decomposes": where(lambda c: unicodedata.normalize("NFD", c) != c),
        "decomposes_compat": where(lambda c: unicodedata.normalize("NFKD", c) != c),
        "not_nfc": where(lambda c: unicodedata.normalize("NFC", c) != c),
        "not_nfkc": where(lambda c: unicodedata.normalize("NFKC", c) != c),
    }
    lines = []
    for name, wanted in expected.items():
        more, less = len(found[name] - wanted), len(wanted - found[name])
        lines.append(f"//   {name}: {len(found[name])}, of which {more} are not there; {less} less")
    python = {c: k for c in CHARACTERS if (k := unicodedata.combining(chr(c)))}
    other = sum(classes.get(c, 0) != python.get(c, 0) for c in {*python, *classes})
    lines.append(f"//   combining classes: {len(classes)}, {other} differ")
    lower = normalizers.Lowercase().normalize_str
    lines.append(f"//   lower case: {len(where(lambda c: lower(c) != c.lower()))} differ")
    return lines


def numbers(name: str, kind: str, values: Iterable[int]) -> str:
    rows, row = [], " "
    for value in values:
        text = f" {value},"
        if len(row) + len(text) > 116:
            rows.append(row)
            row = " "
        row += text
    return f"constexpr {kind} {name}[] = {{\n" + "\n".join([*rows, row]) + "\n};\n"


def main() -> None:
    found, classes, pairs = properties(), combining_classes(), compositions()
    kinds, conjunct = breaks()
    jamo = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
    found["second"] = {b for _, b in pairs} | jamo
    order = {name: i for i, name in enumerate(BREAKS)}
    record = {}
    for c in CHARACTERS:
        flags = sum(1 << i for i, name in enumerate(FLAGS) if c in found[name])
        joins = 1 * (c in conjunct["consonant"]) + 2 * (c in conjunct["linker"])
        joins += 3 * (c in conjunct["extend"])
        record[c] = (flags, classes.get(c, 0), order[kinds.get(c, "Other")], joins)
    kinds_of = sorted(set(record.values()))
    number = {kind: i for i, kind in enumerate(kinds_of)}
    blocks: dict[tuple[int, ...], int] = {}
    first = []
    for start in range(0, 0x110000, BLOCK):
        block = tuple(number[record.get(c, kinds_of[0])] for c in range(start, start + BLOCK))
        first.append(blocks.setdefault(block, len(blocks)))
    while first[-1] == first[-2]:  # what is left out is as the last one
        first.pop()
    assert len(kinds_of) < 256, len(kinds_of)
    assert len(blocks) < 65536

    nfd, nfkd = normalizers.NFD().normalize_str, normalizers.NFKD().normalize_str
    lower = normalizers.Lowercase().normalize_str
    pool: list[int] = []
    places: dict[str, int] = {}
    canonical, compat = [], []
    for table, run in ((canonical, nfd), (compat, nfkd)):
        for c in CHARACTERS:
            text = run(chr(c))
            if text == chr(c) or 0xAC00 <= c < 0xD7A4 or (table is compat and text == nfd(chr(c))):
                continue
            if text not in places:
                places[text] = len(pool)
                pool += [len(text), *map(ord, text)]
            table += [c, places[text]]
    lowered = [
        v for c in CHARACTERS if len(t := lower(chr(c))) == 1 and ord(t) != c for v in (c, ord(t))
    ]
    assert [c for c in CHARACTERS if len(lower(chr(c))) > 1] == [0x130]

    head = [
        "// SPDX-License-Identifier: Apache-2.0",
        "// Generated by tests/golden/make_unicode_tables.py; not for editing. What each",
        f"// character is to tokenizers {tokenizers.__version__}, asked of all code points.",
        f"// Its crates have Unicode 8 to 17; beside unicodedata {unicodedata.unidata_version}:",
        *differences(found, classes),
    ]
    head += [
        numbers("kKinds", "CharKind", []).replace(
            "\n \n",
            "\n" + "\n".join(f"  {{{f}, {c}, {b}, {j}}}," for f, c, b, j in kinds_of) + "\n",
        ),
        f"constexpr uint32_t kBlock = {BLOCK};",
        numbers("kBlockOf", "uint16_t", first),
        numbers("kKindOf", "uint8_t", (n for block in blocks for n in block)),
        "// Lengths, each followed by so many characters.",
        numbers("kPool", "uint32_t", pool),
        "// Character and place in the pool.",
        numbers("kCanonical", "uint32_t", canonical),
        "// Where the compatibility decomposition is another.",
        numbers("kCompat", "uint32_t", compat),
        "// First, second, and what they compose to.",
        numbers("kComposed", "uint32_t", (v for p in sorted(pairs) for v in (*p, pairs[p]))),
        "// Character and its lower case; U+0130 has two characters and is treated apart.",
        numbers("kLower", "uint32_t", lowered),
    ]
    path = Path(__file__).parents[2] / "csrc" / "text" / "unicode_tables.inc"
    path.write_text("\n".join(head))
    print(f"{path}: {path.stat().st_size} bytes, {len(kinds_of)} kinds, {len(blocks)} blocks")


if __name__ == "__main__":
    main()
