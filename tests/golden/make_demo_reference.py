# SPDX-License-Identifier: Apache-2.0
"""Make python/trine/data/demo_reference.npz, which `trine verify demo` compares with.

    python make_demo_reference.py FOLDER        the real all-mpnet-base-v2

Needs sentence-transformers. The file holds texts of all lengths and its vectors for them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "python" / "trine" / "data" / "demo_reference.npz"

OWN = (
    "",
    "a",
    "Déjà vu: naïve café façades in Zürich cost €12.50 (or £9.99).",
    "北京 is a city; 東京 too.",
    "A literal <pad> and a <mask> inside the text.",
    "antidisestablishmentarianism " + "x" * 120,
    " ".join(["the weather service compared several misleading statistics"] * 60),
)
FROM_CORPUS = 9


def main() -> None:
    """Encode and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    corpus = (HERE / "corpus256.txt").read_text(encoding="utf-8").splitlines()
    corpus.sort(key=len)
    picked = np.linspace(0, len(corpus) - 1, FROM_CORPUS).round().astype(int)
    texts = [*OWN, *(corpus[i] for i in picked)]
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors = model.encode(texts, batch_size=1, show_progress_bar=False)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, texts=np.array(texts), sentence_embedding=vectors)
    print(f"{TARGET.name}: {len(texts)} texts, {vectors.dtype} {vectors.shape}")


if __name__ == "__main__":
    main()
