# SPDX-License-Identifier: Apache-2.0
"""``python -m trine`` is the command ``trine``."""

import sys

from trine.cli import main

sys.exit(main())
