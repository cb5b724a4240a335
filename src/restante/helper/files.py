"""The .qmail files of users, read with each owner's rights by a helper."""

from __future__ import annotations

from restante.directory import Account, BadFile, DotQmail
from restante.errors import CannotKnow, TemporaryError
from restante.helper import messages
from restante.helper.pool import Helpers
from restante.helper.wire import Kind, Reader, Writer


class HelperFiles:
    """``SystemFiles.dot_qmail`` for accounts whose files this process may not read."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers

    async def dot_qmail(self, account: Account, extension: str) -> DotQmail | None:
        """See SystemFiles."""
        out = Writer()
        try:
            messages.write_account(out, account)
            out.text(extension, messages.MAX_NAME)
            link = await self._helpers.link(account)
            frame = await link.request(Kind.DOT_QMAIL, [out.octets()])
            fields = Reader(frame.body)
            found = messages.read_dot_qmail(fields)
            fields.end()
        except (BadFile, CannotKnow):
            raise
        except TemporaryError as error:
            raise CannotKnow(f".qmail files of {account.name}: {error}") from error
        return found
