"""International domain names in their two forms (RFC 5890 §2.3.2.1): U-labels and A-labels.

``müller.example`` and ``xn--mller-kva.example`` are one domain. Rows and settings have it in
whichever form somebody wrote it, and mail may come in either: what is asked for in one form is
looked for in the other too, and the form that was asked for goes first.
"""

from __future__ import annotations

from functools import lru_cache

from restante.address_syntax import MAX_DOMAIN, MAX_LABEL

MAX_FORMS = 3
"""Of a domain: as it is written, in A-labels, in U-labels. Only one that is in neither form, as
with capitals beyond ASCII, has all three."""
KEPT = 1000
"""Domains whose forms are kept: finding them takes a tenth of a millisecond."""

_PREFIX = "xn--"


def is_international(domain: str) -> bool:
    """Whether a folded domain may have another form."""
    return _PREFIX in domain or not domain.isascii()


def forms(domain: str) -> tuple[str, ...]:
    """A folded domain as it is, and the other forms in which it may be written.

    A label that cannot be one of IDNA2008 is only itself, in all of them.
    """
    return _forms(domain) if is_international(domain) else (domain,)


def name_forms(name: str) -> tuple[str, ...]:
    """As ``forms``, of an address, or of the name of an account: its domain is what has them."""
    if not is_international(name):
        return (name,)
    local, at, domain = name.rpartition("@")
    if not at:
        return (name,)
    return tuple(f"{local}@{form}" for form in forms(domain))


def in_a_labels(domain: str) -> str:
    """A domain in the form that is ASCII, as far as its labels have one; those that are it stay."""
    if domain.isascii() or len(domain) > MAX_DOMAIN:
        return domain
    return ".".join(map(_a_label, domain.split(".")))


def in_own_form(domain: str) -> str:
    """A folded domain as a row needs it: in U-labels, unless it is in one of its two forms already.

    Mail comes to these, and what is asked for in one of them is never looked for in a third.
    """
    if domain.isascii():
        return domain
    own = forms(in_a_labels(domain))
    return domain if domain in own else own[-1]


def name_in_a_labels(name: str) -> str:
    """As ``in_a_labels``, of an address, or of the name of an account."""
    if name.isascii():
        return name
    local, at, domain = name.rpartition("@")
    return f"{local}@{in_a_labels(domain)}" if at else name


def name_in_ascii(name: str) -> str:
    """An address as what this host writes has it: in A-labels if it is ASCII then, else as it is.

    A host without SMTPUTF8 takes it so (RFC 6531 §3.2 leaves the choice).
    """
    encoded = name_in_a_labels(name)
    return encoded if encoded.isascii() else name


@lru_cache(maxsize=KEPT)
def _forms(domain: str) -> tuple[str, ...]:
    if len(domain) > MAX_DOMAIN:
        return (domain,)
    in_ascii = in_a_labels(domain)
    in_unicode = ".".join(map(_u_label, in_ascii.split(".")))
    return tuple(dict.fromkeys((domain, in_ascii, in_unicode)))


def _a_label(label: str) -> str:
    if label.isascii() or len(label) > MAX_LABEL:
        return label
    import idna  # its tables are large, and most mail needs none of them

    try:
        encoded = idna.encode(label, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return label
    # UTS 46 has dots that are none here (U+3002): behind the last of them a label is lacking.
    return label if encoded.endswith(".") else encoded


def _u_label(label: str) -> str:
    if not (label.startswith(_PREFIX) and label.isascii()) or len(label) > MAX_LABEL:
        return label
    import idna

    try:
        return idna.decode(label)
    except (idna.IDNAError, UnicodeError):
        return label
