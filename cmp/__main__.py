"""`python -m cmp VERB`."""

import gc

gc.disable()  # what is imported stays: searching it for garbage, now and again at the end, is a sixth of the time that `list` takes

from cmp.cli import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main()
