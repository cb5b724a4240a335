"""Speed on this machine, now.

make bench                  all of it
python -m bench instance    messages and sessions through a whole instance
python -m bench relay       messages through a whole instance to another host
python -m bench queue       a queue of a million messages
python -m bench privileges  the price of helpers (as root)
"""

from __future__ import annotations

import argparse

from bench import instance, privileges, queue, relay


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "what",
        nargs="?",
        choices=["all", "instance", "relay", "queue", "privileges"],
        default="all",
    )
    parser.add_argument("-n", "--workers", type=int, default=1, help="of the instance")
    parser.add_argument("-m", "--messages", type=int, default=1_000_000, help="in the queue")
    arguments = parser.parse_args()
    if arguments.what in ("all", "instance"):
        instance.run(arguments.workers)
    if arguments.what in ("all", "relay"):
        relay.run(arguments.workers)
    if arguments.what in ("all", "queue"):
        queue.run(arguments.messages)
    if arguments.what == "privileges":
        privileges.run(arguments.workers)


if __name__ == "__main__":
    main()
