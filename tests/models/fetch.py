# SPDX-License-Identifier: Apache-2.0
"""As much of curl as docs/serving.md uses: machines without it run the page, too."""

from __future__ import annotations

import argparse
import urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("-s", action="store_true")
parser.add_argument("-H", dest="headers", action="append", default=[])
parser.add_argument("-d", dest="data")
parser.add_argument("url")
options = parser.parse_args()
headers = dict(header.split(": ", 1) for header in options.headers)
data = None if options.data is None else options.data.encode()
request = urllib.request.Request(f"http://{options.url}", data, headers)
with urllib.request.urlopen(request, timeout=60) as answer:
    print(answer.read().decode())
