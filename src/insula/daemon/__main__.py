"""python3 -m insula.daemon"""

import sys

from insula.daemon.main import main

sys.exit(main())
