"""How good Restante has to be. Ratios are taken in one run, on one machine."""

from __future__ import annotations

from collections.abc import Mapping

from bench.figures import Goal, Row, Verdict, verdict

WITHIN_HALF = 1 / 1.5
"""As a ratio: at most half as much again."""

GOALS: Mapping[str, Goal] = {
    "mailboxes/4k-50": Goal(6, 10, "postfix"),
    "mailboxes/4k-10": Goal(4, 8, "postfix"),
    "mailboxes/4k-1": Goal(2, 3, "postfix"),
    "mailboxes/64k-10": Goal(4, 6, "postfix"),
    "recipients/1000": Goal(5, 20, "postfix"),
    "pop3/sessions-10": Goal(10, 20, "dovecot as it comes"),
    "pop3/sessions-reused-10": Goal(1.3, 2, "dovecot, all reused"),
    "fetch/4k": Goal(1, 1.5, "dovecot"),
    "fetch/64k": Goal(1, 1.2, "dovecot"),
    "listings/50k-cold": Goal(2, 4, "dovecot"),
    "listings/50k-warm": Goal(1, 2, "dovecot"),
    "idle/1000": Goal(10, 30, "dovecot"),
    **{
        f"lookups/{database}{kind}": Goal(WITHIN_HALF, 1.0, "1,000 mailboxes")
        for database in ("sqlite", "mariadb")
        for kind in ("", "-alias", "-caught", "-missing", "-login")
    },
    "relay/50": Goal(2, 4, "postfix"),
    "privileges/4k-50": Goal(0.8, 0.95, "by the workers"),
    "privileges/pop3-10": Goal(0.8, 0.95, "by the workers"),
    "queue/add": Goal(1 / 1.3, 1.0, "an empty queue"),
    "startup/first-greeting": Goal(1.5, 0.5),
    "sendmail/one": Goal(0.150, 0.060),
}
"""By the key of the row."""


def judge(row: Row) -> Verdict | None:
    """What its goal says of a row; None where it has none, or nobody is there to compare with."""
    goal = GOALS.get(row.key)
    return verdict(row, goal) if goal and row.judged else None
