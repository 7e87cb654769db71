"""``python -m endwell`` is the ``endwell`` command."""

import sys

from .cli import main

sys.exit(main())
