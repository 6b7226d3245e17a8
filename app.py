"""Starts the dashboard: `python app.py`. Whoever imports it finds `demo`, and may launch it; so Hugging Face Spaces do."""

import os

from cmp.settings import Settings, prepare_libraries

prepare_libraries(os.environ)

from cmp.errors import CmpError  # noqa: E402  (torch reads the thread settings when it is imported)
from cmp.server import dashboard  # noqa: E402
from cmp.workbench import Workbench  # noqa: E402

try:
    demo = dashboard(Workbench(Settings.from_env(os.environ)))
    if __name__ == "__main__":
        demo.launch()
except CmpError as fault:
    raise SystemExit(f"{fault.title}: {fault.message}\n  {fault.hint}") from None
