"""`python -m duihua` is `duihua`."""

import sys

from duihua.cli.main import main

sys.exit(main())
