"""`python -m ckpt_rules`."""

import sys

from ckpt_rules.cli import main

if __name__ == "__main__":
    sys.exit(main())
