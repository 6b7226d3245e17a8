"""`python -m cmp VERB`."""

from cmp.cli import main

if __name__ == "__main__":
    main()
