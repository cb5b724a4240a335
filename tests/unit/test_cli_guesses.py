"""What the operator sees of guessing, and what may be done about it."""

from __future__ import annotations

import time
from contextlib import closing

from restante.cli.status import ExitCode
from restante.guessing.file import FILE_NAME, GuessFile
from restante.network import network_of
from restante.tally.owner import as_owner
from tests.support.shell import Shell


def guess(hosted: Shell, account: str, peer: str, count: int, *, ago: float = 0) -> None:
    """As a worker counts it."""
    queue = hosted.directory / "queue"
    with as_owner(str(queue)):
        file = GuessFile.open(str(queue / FILE_NAME), 3600, create=True)
        with closing(file), file.transaction():
            for number in range(count):
                file.count(account, network_of(peer), bytes([number]), time.time() - ago)


def listed(hosted: Shell) -> list[list[str]]:
    return [line.split("\t")[:3] for line in hosted("guesses", "list").out.splitlines()]


def test_what_counts_most_stands_first_and_what_is_old_does_not(hosted: Shell) -> None:
    assert listed(hosted) == []
    guess(hosted, "ann@example.com", "192.0.2.7", 2)
    guess(hosted, "iain@example.com", "2001:db8:1:2::3", 5)
    guess(hosted, "old@example.com", "192.0.2.9", 9, ago=3601)
    assert listed(hosted) == [
        ["iain@example.com", "2001:db8:1:2::/64", "5"],
        ["ann@example.com", "192.0.2.7", "2"],
    ]
    most = hosted.json("guesses", "list")[0]
    assert most["guesses"] == 5
    assert most["last"].endswith("+00:00"), "as all commands write a moment"


def test_accounts_and_networks_are_cleared_by_any_of_their_names(hosted: Shell) -> None:
    for peer in ("192.0.2.7", "192.0.2.8", "2001:db8:1:2::3", "2001:db8:1:3::3"):
        guess(hosted, "ann@example.com", peer, 1)
    for name in ("192.0.2.7", "192.0.2.0/24", "2001:DB8:1:2::99", "2001:db8:1::/48"):
        before = len(listed(hosted))
        assert hosted("guesses", "clear", name).code == 0
        assert len(listed(hosted)) == before - 1, name
    guess(hosted, "ann@example.com", "192.0.2.7", 3)
    assert hosted("guesses", "clear", "Ann@Example.com").code == 0
    assert listed(hosted) == []


def test_an_account_is_cleared_in_either_form_of_its_domain(hosted: Shell) -> None:
    """What counts bears the name of the row; for who does not exist, in A-labels."""
    forms = ("ann@müller.example", "ann@xn--mller-kva.example")
    for name in (*forms, "ANN@MÜLLER.example"):
        for account in forms:
            guess(hosted, account, "192.0.2.7", 1)
        assert hosted("guesses", "clear", name).code == 0
        assert listed(hosted) == []


def test_clearing_everything_or_what_is_not_there(hosted: Shell) -> None:
    guess(hosted, "ann@example.com", "192.0.2.7", 3)
    nobody = hosted("guesses", "clear", "nobody")
    assert nobody.code == ExitCode.REFUSED
    assert "no wrong password counts for or from nobody" in nobody.err
    assert hosted("guesses", "clear").code == ExitCode.USAGE
    assert hosted("guesses", "clear", "--all", "ann@example.com").code == ExitCode.USAGE
    assert hosted("guesses", "clear", "--all").code == 0
    assert hosted("guesses", "clear", "--all").code == 0
    assert listed(hosted) == []
