"""python3 -m insula.keeper"""

import sys

from insula.keeper.main import main

sys.exit(main())
