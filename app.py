"""Starts the dashboard: `python app.py`. Whoever imports it finds `demo`, and may launch it; so Hugging Face Spaces do."""

import os
import sys

from cmp.settings import Settings, prepare_libraries

prepare_libraries(os.environ)

from cmp.errors import CmpError  # noqa: E402  (torch reads the thread settings when it is imported)
from cmp.server import dashboard, serve_page  # noqa: E402
from cmp.workbench import Workbench  # noqa: E402
from cmp.zero_gpu import lend_card  # noqa: E402

try:
    bench = lend_card(Workbench(Settings.from_env(os.environ)), os.environ)
    for step in bench.fetching():  # of runs on the Hub
        print(step.what, flush=True)
    demo = dashboard(bench)
    if __name__ == "__main__":
        raise SystemExit(serve_page(bench, demo))
except CmpError as fault:
    print(f"{fault.title}: {fault.message}\n  {fault.hint}", file=sys.stderr)
    raise SystemExit(fault.exit_code) from None
