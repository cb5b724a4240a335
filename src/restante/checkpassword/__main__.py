"""``python -m restante.checkpassword`` is the checkpassword program."""

from restante.checkpassword import main

main()
