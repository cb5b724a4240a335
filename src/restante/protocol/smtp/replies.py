"""The replies that the SMTP server core gives by itself (RFC 5321 §4.2.2, RFC 3463)."""

from __future__ import annotations

from collections.abc import Collection

from restante.status import Reply

OK = Reply(250, "0.0", "Ok")
BYE = Reply(221, "0.0", "Bye")
START_CONTENT = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
CANNOT_VERIFY = Reply(252, "0.0", "Cannot VRFY user, but will accept message and attempt delivery")
_HELP = "HELO EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT"

NOT_A_COMMAND = Reply(500, "5.2", "Command not recognized")
NOT_TEXT = Reply(500, "5.2", "A command is one line of UTF-8 text without control characters")
NOT_A_LINE = Reply(500, "5.2", "A command ends with <CR><LF>")
LINE_TOO_LONG = Reply(500, "5.2", "Line too long")
NOT_IMPLEMENTED = Reply(502, "5.1", "Command not implemented")
NO_ARGUMENT = Reply(501, "5.4", "This command takes no argument")

HELLO_SYNTAX = Reply(501, "5.4", "Syntax: EHLO hostname")
VRFY_SYNTAX = Reply(501, "5.4", "Syntax: VRFY address")
MAIL_SYNTAX = Reply(501, "5.2", "Syntax: MAIL FROM:<address>")
RCPT_SYNTAX = Reply(501, "5.2", "Syntax: RCPT TO:<address>")
BDAT_SYNTAX = Reply(501, "5.4", "Syntax: BDAT count [LAST]")
PARAMETER_SYNTAX = Reply(501, "5.4", "Malformed parameter")
PARAMETER_TWICE = Reply(501, "5.4", "Parameter given twice")
PARAMETER_UNKNOWN = Reply(555, "5.4", "Unsupported parameter")
NEEDS_SMTPUTF8 = Reply(553, "6.7", "A non-ASCII address needs the SMTPUTF8 parameter")

HELLO_FIRST = Reply(503, "5.1", "Send EHLO or HELO first")
MAIL_FIRST = Reply(503, "5.1", "Send MAIL first")
MAIL_NESTED = Reply(503, "5.1", "A transaction is already open")
CHUNKS_BEGUN = Reply(503, "5.1", "The content has begun with BDAT")
RCPT_FIRST = Reply(503, "5.1", "Send RCPT first")
ALL_REFUSED = Reply(554, "5.1", "No valid recipients")
NONE_YET = Reply(451, "5.1", "No recipients could be accepted now, try again later")

START_HANDSHAKE = Reply(220, "0.0", "Ready to start TLS")
TLS_ALREADY = Reply(503, "5.1", "TLS is active already")
SENT_BEFORE_HANDSHAKE = Reply(503, "5.1", "Nothing may follow STARTTLS before the handshake")
STARTTLS_FIRST = Reply(530, "7.0", "Must issue a STARTTLS command first")
AUTH_FIRST = Reply(530, "7.0", "Authentication required")
AUTH_NEEDS_TLS = Reply(538, "7.11", "Encryption required for requested authentication mechanism")
AUTH_ALREADY = Reply(503, "5.1", "You are authenticated already")
NO_AUTH_NOW = Reply(503, "5.1", "AUTH is not permitted during a mail transaction")
AUTH_SYNTAX = Reply(501, "5.4", "Syntax: AUTH mechanism [initial-response]")
NO_MECHANISM = Reply(504, "5.4", "Unrecognized authentication type")
AUTH_CANCELLED = Reply(501, "7.0", "Authentication cancelled")
RESPONSE_TOO_LONG = Reply(500, "5.6", "Authentication exchange line is too long")
TOO_MANY_LOGINS = Reply(421, "7.0", "Too many refused logins")

TOO_MANY_RECIPIENTS = Reply(452, "5.3", "Too many recipients")
TOO_MANY_ERRORS = Reply(421, "7.0", "Too many errors")
NOT_A_WEB_SERVER = Reply(554, "5.1", "This is a mail server")

TOO_BIG = Reply(552, "3.4", "Message too big")
BARE_LINE_END = Reply(554, "6.0", "Lines must end with <CR><LF>; a bare <CR> or <LF> is refused")
LONG_LINE = Reply(554, "6.0", "A line of the message is too long")


def help_without(commands: Collection[str]) -> Reply:
    """The commands there are, but for those that cannot be used now."""
    usable = (each for each in _HELP.split() if each not in commands)
    return Reply(214, "0.0", f"{' '.join(usable)}\nSee RFC 5321")


def auth_malformed(what: str) -> Reply:
    """A line of an AUTH exchange cannot be used (RFC 4954 §4)."""
    return Reply(501, "5.2", f"Authentication failed: {what}")
