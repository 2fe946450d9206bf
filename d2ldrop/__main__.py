"""Run the command line: `python -m d2ldrop`."""

import sys

from d2ldrop.cli.main import main

sys.exit(main())
