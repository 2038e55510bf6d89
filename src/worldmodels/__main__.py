"""``python -m worldmodels`` is the command ``worldmodels``."""

import sys

from worldmodels.cli.main import main

sys.exit(main())
