"""``python -m restante`` is the restante command."""

from restante.cli import main

main()
