"""``python -m restante.sendmail`` is the sendmail program."""

from restante.sendmail import main

main()
