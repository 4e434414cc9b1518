"""``python -m jupyter_aistack.cli``, where there is no ``jupyter`` on the path."""

import sys

from . import main

sys.exit(main())
