"""The values of RET, ENVID, NOTIFY and ORCPT, as SMTP writes them (RFC 3461 §4, RFC 6533 §3).

Whoever reads them raises DsnSyntaxError; whoever writes them takes what was read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from restante.address import embed_unicode
from restante.envelope import Notify

MAX_ENVID = 100
"""Characters in the value of ENVID (RFC 3461 §4.4)."""
MAX_ORCPT = 500
"""Characters in the value of ORCPT (RFC 3461 §4.2)."""
UTF8_TYPE = "utf-8"
"""The type of addresses that hold more than ASCII (RFC 6533 §3)."""

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-Fa-f]{2})")
_NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")
# Graphic characters and the space of ASCII: what an envelope id and an original recipient may
# hold before they are encoded (RFC 3461 §§ 4.2, 4.4).
_PRINTABLE = re.compile(r"[ -~]+")
# addr-type = atom (RFC 3461 §4.2); other specials of RFC 822 do not get past the grammar.
_TYPED = re.compile(r"([!#-'*+\-/-9=?A-Z^-~]+);(.+)")
_UTF8_ADDRESS = re.compile(r"(?:[!-*,-<>-\[\]-~]|[^\x00-\x7f]|\\x\{[0-9A-Fa-f]{2,6}\})+")
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]+)\}")

_RET: Mapping[str, Literal["FULL", "HDRS"]] = {"FULL": "FULL", "HDRS": "HDRS"}
_NOTIFY = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


class DsnSyntaxError(ValueError):
    """The text is no value of its parameter."""


def parse_ret(value: str) -> Literal["FULL", "HDRS"]:
    """How much is to be returned (RFC 3461 §4.3)."""
    ret = _RET.get(value.upper())
    if ret is None:
        raise DsnSyntaxError
    return ret


def parse_envid(value: str) -> str:
    """The envelope id, decoded."""
    if len(value) > MAX_ENVID:
        raise DsnSyntaxError
    return _decode_xtext(value)


def parse_notify(value: str) -> Notify:
    """NEVER by itself, or a list of the others (RFC 3461 §4.1)."""
    if value.upper() == "NEVER":
        return Notify.NEVER
    asked = Notify.NEVER
    for word in value.upper().split(","):
        if word not in _NOTIFY:
            raise DsnSyntaxError
        asked |= _NOTIFY[word]
    return asked


def parse_orcpt(value: str, *, smtputf8: bool) -> str:
    """The original recipient as ``type;address``, decoded.

    Characters outside ASCII may stand for themselves where the transaction is one of
    SMTPUTF8, and may be embedded always (RFC 6533 §3). The bound holds for the form in which
    it is passed on.
    """
    typed = _TYPED.fullmatch(value)
    if typed is None or len(value) > MAX_ORCPT or not (smtputf8 or value.isascii()):
        raise DsnSyntaxError
    kind, address = typed.groups()
    decode = _decode_utf8_address if kind.lower() == UTF8_TYPE else _decode_xtext
    orcpt = f"{kind};{decode(address)}"
    if len(encode_orcpt(orcpt)) > MAX_ORCPT:
        raise DsnSyntaxError
    return orcpt


def encode_xtext(text: str) -> str:
    """``text`` as xtext, for ENVID (RFC 3461 §4): what is no xchar, octet by octet."""
    return _NOT_XCHAR.sub(
        lambda found: "".join(f"+{octet:02X}" for octet in found[0].encode()), text
    )


def encode_orcpt(orcpt: str) -> str:
    """``type;address`` as the value of ORCPT, in ASCII whether or not SMTPUTF8 is spoken."""
    kind, _, address = orcpt.partition(";")
    encode = embed_unicode if kind.lower() == UTF8_TYPE else encode_xtext
    return f"{kind};{encode(address)}"


def _decode_xtext(value: str) -> str:
    """Lower-case digits are tolerated; what they stand for is not in doubt."""
    if not _XTEXT.fullmatch(value):
        raise DsnSyntaxError
    text = _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), value)
    if not _PRINTABLE.fullmatch(text):
        raise DsnSyntaxError
    return text


def _decode_utf8_address(value: str) -> str:
    if not _UTF8_ADDRESS.fullmatch(value):
        raise DsnSyntaxError
    try:
        text = _EMBEDDED.sub(lambda found: chr(int(found[1], 16)), value)
    except ValueError:  # beyond U+10FFFF
        raise DsnSyntaxError from None
    if not text.isprintable():  # surrogates are not, either
        raise DsnSyntaxError
    return text
