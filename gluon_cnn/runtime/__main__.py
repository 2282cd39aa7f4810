"""`python -m gluon_cnn.runtime`."""

import sys

from gluon_cnn.runtime.command import main

if __name__ == "__main__":
    sys.exit(main())
