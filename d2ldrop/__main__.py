"""Run the command line: `python -m d2ldrop`."""

import sys

from d2ldrop.cli import main

sys.exit(main())
