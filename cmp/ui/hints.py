"""What to do in the words of the page: where something is filled in, in the place of the command line's options."""

from __future__ import annotations

import re

from cmp.errors import CmpError, sentences

QUESTION = "Base model and alpha"  # the section of Compare's form
DETAILS = "the checkpoint’s details"  # beside the list of the Runs tab


def hint_here(hint: str, where: str = QUESTION) -> str:
    """The same hint, with the section to open."""
    hint = re.sub(r"use --bases (.+)\.\Z", r"add \1 under “Folders” on the Runs tab, as one of base models.", hint)
    if hint.startswith("Give it with --base"):
        return f"Name it under “{where}”: an id, or a folder on this computer."
    hint = re.sub(r"(?:(?:as|with) )?--base( ID_OR_DIR)?(?![\w-])", f"under “{where}”", hint)
    return re.sub(r"--alpha X\b", f"alpha, under “{where}”", hint).replace("--alpha", "alpha")


def told_of(fault: CmpError, where: str) -> str:
    """What happened and what to do on this page."""
    return sentences(fault.message, hint_here(fault.hint, where))


def on_page(fault: CmpError, where: str) -> CmpError:
    """The same error, to be raised on this page."""
    return type(fault)(fault.message, hint_here(fault.hint, where))
