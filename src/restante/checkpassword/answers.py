"""What a checkpassword program is answered, by the server or by itself."""

from __future__ import annotations

from collections.abc import Iterator

from restante import maillog
from restante.auth import Authenticator, LoginAttempt, Refusal, Welcome
from restante.auth.login import account_named
from restante.checkpassword.wire import (
    FIND,
    LATER,
    NO,
    YES,
    Answer,
    Person,
    Question,
    decode_question,
    encode_answer,
)
from restante.directory import Account, Directory
from restante.errors import RestanteError

SERVICE = "checkpassword"
"""As the log calls it."""


class Answers:
    """Answers the questions that come through a server's socket."""

    def __init__(
        self, authenticator: Authenticator, directory: Directory, ids: Iterator[str]
    ) -> None:
        """``ids``: names for sessions, in the log."""
        self._authenticator = authenticator
        self._directory = directory
        self._ids = ids

    async def respond(self, octets: bytes) -> bytes:
        """The answer to a question; raises BadMessage."""
        question = decode_question(octets)
        session = next(self._ids)
        return encode_answer(await decided(question, session, self._authenticator, self._directory))


async def decided(
    question: Question, session: str, authenticator: Authenticator, directory: Directory
) -> Answer:
    """The answer to a question; never raises what it foresees."""
    if question.verb == FIND:
        return await _found(question.login, directory)
    attempt = LoginAttempt(session, question.login, question.password, SERVICE, question.peer)
    answer = await authenticator.login(attempt)
    if isinstance(answer, Welcome):
        return _yes(answer.account)
    return Answer(LATER if answer.reason is Refusal.SYSTEM_ERROR else NO)


async def _found(login: str, directory: Directory) -> Answer:
    try:
        account = await account_named(login, directory)
    except RestanteError as error:
        maillog.user_not_found(login, str(error))
        return Answer(LATER)
    return Answer(NO) if account is None else _yes(account)


def _yes(account: Account) -> Answer:
    return Answer(YES, Person(account.name, account.uid, account.gid, account.home))
