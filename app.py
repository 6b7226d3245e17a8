"""Starts the dashboard: `python app.py`. Also the entry point on Hugging Face Spaces."""

import os

from cmp.settings import Settings, prepare_libraries

prepare_libraries(os.environ)

from cmp.errors import CmpError  # noqa: E402  (torch reads the thread settings when it is imported)
from cmp.server import serve_forever  # noqa: E402
from cmp.workbench import Workbench  # noqa: E402

if __name__ == "__main__":
    try:
        raise SystemExit(serve_forever(Workbench(Settings.from_env(os.environ))))
    except CmpError as fault:
        raise SystemExit(f"{fault.title}: {fault.message}\n  {fault.hint}") from None
