"""The command line of the sendmail program: every option, as programs give them."""

from __future__ import annotations

import os

import pytest

from restante.sendmail import Refusal
from restante.sendmail.options import Mode, Options, parse

TO_ANN = Options(recipients=("ann",))

ACCEPTED: dict[str, Options] = {
    # What to do
    "sendmail ann": TO_ANN,
    "sendmail -bm ann": TO_ANN,
    "sendmail -b m ann": TO_ANN,
    "sendmail -bs": Options(mode=Mode.SMTP),
    "sendmail -bp": Options(mode=Mode.QUEUE),
    "/usr/bin/mailq": Options(mode=Mode.QUEUE),
    "mailq -v": Options(mode=Mode.QUEUE),
    "sendmail -q": Options(mode=Mode.RETRY),
    "sendmail -vq": Options(mode=Mode.RETRY),
    "sendmail -bi": Options(mode=Mode.ALIASES),
    "sendmail -I": Options(mode=Mode.ALIASES),
    "/usr/bin/newaliases": Options(mode=Mode.ALIASES),
    # Recipients
    "sendmail -t": Options(from_header=True),
    "sendmail -t ann iain": Options(from_header=True, recipients=("ann", "iain")),
    "sendmail -- -ann": Options(recipients=("-ann",)),
    "sendmail ann -i": Options(recipients=("ann", "-i")),
    "sendmail - ann": Options(recipients=("-", "ann")),
    # The end of the message
    "sendmail -i ann": TO_ANN._replace(ends_with_dot=False),
    "sendmail -oi ann": TO_ANN._replace(ends_with_dot=False),
    "sendmail -o i ann": TO_ANN._replace(ends_with_dot=False),
    "sendmail -ti": Options(from_header=True, ends_with_dot=False),
    "sendmail -it": Options(from_header=True, ends_with_dot=False),
    # Who sends
    "sendmail -f iain ann": TO_ANN._replace(sender="iain"),
    "sendmail -fiain ann": TO_ANN._replace(sender="iain"),
    "sendmail -tifiain": Options(from_header=True, ends_with_dot=False, sender="iain"),
    "sendmail -tif iain": Options(from_header=True, ends_with_dot=False, sender="iain"),
    "sendmail -r iain ann": TO_ANN._replace(sender="iain"),
    "sendmail -fone -ftwo ann": TO_ANN._replace(sender="two"),
    "sendmail -f <> ann": TO_ANN._replace(sender=""),
    "sendmail -F Iain ann": TO_ANN._replace(name="Iain"),
    "sendmail -FIain ann": TO_ANN._replace(name="Iain"),
    # Notifications
    "sendmail -N never ann": TO_ANN._replace(notify="NEVER"),
    "sendmail -Nsuccess,Failure ann": TO_ANN._replace(notify="SUCCESS,FAILURE"),
    "sendmail -N DELAY ann": TO_ANN._replace(notify="DELAY"),
    "sendmail -R full ann": TO_ANN._replace(ret="FULL"),
    "sendmail -Rhdrs ann": TO_ANN._replace(ret="HDRS"),
    "sendmail -V QQ314159 ann": TO_ANN._replace(envid="QQ314159"),
    f"sendmail -V {'x' * 94}+= ann": TO_ANN._replace(envid="x" * 94 + "+="),
    # What changes nothing
    "sendmail -B 8BITMIME ann": TO_ANN,
    "sendmail -B7bit ann": TO_ANN,
    "sendmail -oem ann": TO_ANN,
    "sendmail -oee ann": TO_ANN,
    "sendmail -om -odb -oQ/var/spool ann": TO_ANN,
    "sendmail -o em ann": TO_ANN,
    "sendmail -em ann": TO_ANN,
    "sendmail -O ErrorMode=m ann": TO_ANN,
    "sendmail -OErrorMode=m ann": TO_ANN,
    "sendmail -v -G -n -U -m -s -x -c ann": TO_ANN,
    "sendmail -vGnU ann": TO_ANN,
    "sendmail -h 5 ann": TO_ANN,
    "sendmail -d0.1 ann": TO_ANN,
    "sendmail -Ac ann": TO_ANN,
    "sendmail -Am -C /etc/mail.cf -L tag -p smtp -X log -D log ann": TO_ANN,
}


@pytest.mark.parametrize("line", ACCEPTED)
def test_accepted(line: str) -> None:
    assert parse(line.split(" ")) == ACCEPTED[line]


def test_empty_values() -> None:
    assert parse(["sendmail", "-f", "", "-F", "", "ann"]) == TO_ANN._replace(sender="", name="")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sendmail -Z", "there is no option -Z"),
        ("sendmail -tZ", "there is no option -Z"),
        ("sendmail --help", "there is no option --"),
        ("sendmail -f", "option -f needs a value"),
        ("sendmail -tif", "option -f needs a value"),
        ("sendmail -bd", "restante serve"),
        ("sendmail -bD", "restante serve"),
        ("sendmail -bt", "restante explain"),
        ("sendmail -bv ann", "restante explain"),
        ("sendmail -bx", "there is no -bx"),
        ("sendmail -bd -q30m", "restante serve"),
        ("sendmail -q30m", "-q takes no value"),
        ("sendmail -N sometimes ann", "-N knows SUCCESS, FAILURE, DELAY"),
        ("sendmail -N never,delay ann", "-N knows"),
        ("sendmail -R some ann", "-R knows FULL, HDRS"),
        ("sendmail -B 9BIT ann", "-B knows 7BIT, 8BITMIME"),
        ("sendmail -V é ann", "-V takes"),
        (f"sendmail -V {'x' * 101} ann", "-V takes"),
        (f"sendmail -V {'x' * 95}+= ann", "count as three"),
    ],
)
def test_refused(line: str, says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(line.split(" "))
    assert refusal.value.status == os.EX_USAGE
    assert says in str(refusal.value)
