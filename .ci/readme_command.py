# SPDX-License-Identifier: Apache-2.0
"""Print the README's first command that contains WORD, so that CI runs what users read.

python .ci/readme_command.py pytest
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def main() -> None:
    word = sys.argv[1]
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", readme, flags=re.DOTALL):
        for line in block.splitlines():
            if word in line:
                print(line)
                return
    raise SystemExit(f"README.md has no command with {word!r}")


if __name__ == "__main__":
    main()
