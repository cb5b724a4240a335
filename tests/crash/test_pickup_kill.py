"""kill -9 while programs leave mail: each message whose program ended with 0 arrives, once."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from pathlib import Path

from restante.drop import DropPaths
from restante.drop.deposit import Deposit, finish
from restante.drop.record import Recipient, Record
from tests.support.dropping import dropped
from tests.support.instance import Instance, until
from tests.support.serving import ANN, maildir, new_server, start

KILLS = 6
_TOKEN = re.compile(rb"^X-Token: (\S+)", re.MULTILINE)


class Programs:
    """A thread that drops messages until it is told to stop."""

    def __init__(self, instance: Instance) -> None:
        self._paths = DropPaths.of(str(instance.directory))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drop)
        self.dropped = 0

    def __enter__(self) -> Programs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _drop(self) -> None:
        while not self._stop.is_set():
            size = random.choice([10, 10, 10, 100_000])
            deposit = Deposit(self._paths, Record("iain@example.com", (Recipient(ANN),)))
            deposit.write(b"X-Token: %d\n\n%s\n" % (self.dropped, b"x" * size))
            finish(self._paths, [deposit])
            self.dropped += 1
            time.sleep(0.002)


def tokens(instance: Instance) -> Counter[int]:
    """What is in the mailbox."""
    found: Counter[int] = Counter()
    for path in (maildir(instance, ANN) / "new").iterdir():
        match = _TOKEN.search(path.read_bytes())
        assert match is not None
        found[int(match[1])] += 1
    return found


def test_kill_while_mail_is_left(tmp_path: Path) -> None:
    with new_server(tmp_path / "i") as instance:
        with Programs(instance) as programs:
            for _ in range(KILLS):
                seen = programs.dropped
                until(lambda seen=seen: programs.dropped > seen + 20, "mail is left")
                time.sleep(random.uniform(0, 0.1))
                instance.kill()
                start(instance)
        until(lambda: len(tokens(instance)) == programs.dropped, "all of it has arrived")
        assert dropped(instance.directory) == []
        assert tokens(instance) == Counter(range(programs.dropped))
        assert list((instance.directory / "drop" / "bad").iterdir()) == []
