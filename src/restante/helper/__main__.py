"""``python -I -m restante.helper DESCRIPTOR LIMITS``: the nursery."""

import sys

from restante.helper.nursery import main

sys.exit(main(sys.argv[1:]))
