"""A stand-in for qmail-popup(8): USER and PASS on standard input, then the checkpassword program.

popup.py HOST SUBPROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    print(f"{text}\r", flush=True)


def line() -> tuple[str, str]:
    said = b""
    while not said.endswith(b"\n"):
        octet = os.read(0, 1)  # the subprogram goes on where this ends
        if not octet:
            sys.exit(0)
        said += octet
    verb, _, argument = said.decode().strip().partition(" ")
    return verb.upper(), argument


def authenticate(login: str, password: str, command: list[str]) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.dup2(reading, 3)
        os.set_inheritable(3, True)  # also where it was 3 already
        os.execvp(command[0], command)
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(f"{login}\0{password}\0<1.2@x>\0".encode())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    host, *command = sys.argv[1:]
    say(f"+OK <1.2@{host}>")
    login = ""
    while True:
        verb, argument = line()
        if verb == "USER":
            login = argument
            say("+OK")
        elif verb == "PASS":
            status = authenticate(login, argument, command)
            if status:
                say("-ERR authorization failed" if status == 1 else "-ERR unable to do so now")
            sys.exit(0)
        else:
            say("-ERR authorization first")


main()
