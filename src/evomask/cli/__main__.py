"""`python -m evomask.cli`, as torchrun starts it."""

import sys

from evomask.cli import main

if __name__ == "__main__":
    sys.exit(main())
