"""What is served, what is served with a warning, and what is refused with a clear word."""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from restante.tls import CertificateRefused
from restante.tls.certificate import Pair, PairFiles, load_pair
from restante.tls.selfsigned import write_self_signed
from tests.support.certificates import DAY, NOW, issue, replace, trusting, write


def test_a_good_pair_is_good(tmp_path: Path) -> None:
    authority = issue()
    middle = issue(by=authority, subject="between")
    mx = issue("mx.example.com", "*.Example.NET", by=middle)

    pair = load_pair(write(tmp_path, "mx", mx, middle, authority))

    assert pair.names == ("mx.example.com", "*.example.net")
    assert (pair.faults(NOW), pair.advice(NOW)) == ([], [])


@pytest.mark.parametrize(
    ("days", "fault", "advice"),
    [(-1, "not valid before", ""), (76, "", "expires on"), (75, "", ""), (90, "expired on", "")],
)
def test_validity(tmp_path: Path, days: int, fault: str, advice: str) -> None:
    mx = issue("mx.example.com", begins=NOW, ends=NOW + 90 * DAY, by=issue())
    pair = load_pair(write(tmp_path, "mx", mx))
    then = NOW.replace(microsecond=0) + days * DAY
    assert [fault in found for found in pair.faults(then)] == ([True] if fault else [])
    assert [advice in found for found in pair.advice(then)] == ([True] if advice else [])


def test_a_certificate_without_a_name(tmp_path: Path) -> None:
    pair = load_pair(write(tmp_path, "mx", issue(by=issue(), subject="mx.example.com")))
    assert pair.names == ()
    assert ["names no host" in found for found in pair.faults(NOW)] == [True]


def test_a_chain_in_the_wrong_order(tmp_path: Path) -> None:
    authority = issue()
    middle = issue(by=authority, subject="between")
    mx = issue("mx.example.com", by=middle)
    (fault,) = load_pair(write(tmp_path, "mx", mx, authority, middle)).faults(NOW)
    assert "certificate 2 in it is not the issuer of certificate 1; put the host's own" in fault
    (fault,) = load_pair(write(tmp_path, "mx", mx, middle, mx, middle)).faults(NOW)
    assert "certificate 3 in it is not the issuer of certificate 2" in fault


def test_a_chain_certificate_of_the_right_name_and_another_key(tmp_path: Path) -> None:
    """As where an authority has got itself a new key, and the file still has the old one."""
    authority = issue()
    former, middle = (issue(by=authority, subject="between") for _ in range(2))
    mx = issue("mx.example.com", by=middle)
    assert load_pair(write(tmp_path, "mx", mx, middle)).faults(NOW) == []
    (fault,) = load_pair(write(tmp_path, "mx", mx, former)).faults(NOW)
    assert "certificate 2 in it is not the issuer of certificate 1" in fault


def test_what_is_served_is_what_was_read(tmp_path: Path) -> None:
    """Of a file with more in it than certificates, also in the words of other systems."""
    middle = issue(by=issue(), subject="between")
    mx, former = (issue(name, by=middle) for name in ("mx.example.com", "former.example.com"))
    files = write(tmp_path, "mx", mx, middle)
    whole = Path(files.certificate).read_bytes()
    commented = b"".join(b"# " + line for line in former.certificate_pem.splitlines(keepends=True))
    for octets in (
        commented + whole,
        mx.key_pem() + whole,
        b"subject=CN = mx.example.com -- by hand\n" + whole + b"end",
        b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"),
    ):
        replace(files.certificate, octets)
        pair = load_pair(files)
        assert pair.names == ("mx.example.com",)
        assert pair.faults(NOW) == []
        assert served_by(pair) == mx.certificate.public_bytes(Encoding.DER)


def served_by(pair: Pair) -> bytes | None:
    """The certificate that a client is shown."""
    context = trusting()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server)
    server = pair.context.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client.getpeercert(binary_form=True)


def test_a_certificate_that_openssl_cannot_read_is_not_called_a_key(tmp_path: Path) -> None:
    mx = issue("mx.example.com", by=issue())
    files = write(tmp_path, "mx", mx)
    octets = mx.certificate.public_bytes(Encoding.DER)
    # A version of no octets: what is read here of a certificate does not tell.
    spoilt = octets.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x01\x01\x02")
    assert spoilt != octets
    replace(files.certificate, ssl.DER_cert_to_PEM_cert(spoilt).encode())
    assert refusal(files).startswith("mx.pem holds no certificate that can be read")


def test_a_chain_that_is_not_whole(tmp_path: Path) -> None:
    middle = issue(by=issue(), subject="between")
    files = write(tmp_path, "mx", issue("mx.example.com", by=middle), middle)
    whole = Path(files.certificate).read_bytes()
    cut = len(whole) - 60
    for octets in (whole[:cut], whole[:cut] + b"!" + whole[cut:], whole.replace(b"END", b"---", 1)):
        replace(files.certificate, octets)
        assert refusal(files).startswith("mx.pem holds no certificate that can be read")


def test_a_key_that_everybody_can_read(tmp_path: Path) -> None:
    files = write(tmp_path, "mx", issue("mx.example.com", by=issue()))
    os.chmod(files.key, 0o644)
    (fault,) = load_pair(files).faults(NOW)
    assert fault.endswith(f"everybody can read; run: chmod 600 {files.key}")
    os.chmod(files.key, 0o640)
    assert load_pair(files).faults(NOW) == []


def refusal(files: PairFiles) -> str:
    """Why a pair is refused, the directory left out."""
    with pytest.raises(CertificateRefused) as caught:
        load_pair(files)
    return re.sub(r"/\S+/", "", str(caught.value))


def test_a_key_that_is_not_its_own(tmp_path: Path) -> None:
    mine, other = (write(tmp_path, name, issue("mx.example.com")) for name in ("mx", "other"))
    assert refusal(PairFiles(mine.certificate, other.key)).startswith(
        "other.key is not the key of mx.pem; name the two"
    )
    of_another_kind = issue("mx.example.com", key=rsa.generate_private_key(65537, 2048))
    other = write(tmp_path, "other", of_another_kind)
    assert refusal(PairFiles(mine.certificate, other.key)).startswith("other.key is not the key")
    assert refusal(PairFiles(other.certificate, mine.key)).startswith("mx.key is not the key")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    files = write(tmp_path, "mx", issue("mx.example.com"))
    assert refusal(PairFiles(files.certificate, str(tmp_path / "no.key"))) == (
        "no.key cannot be read: No such file or directory"
    )
    assert refusal(PairFiles(str(tmp_path), files.key)).endswith("cannot be read: Is a directory")


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    mx = issue("mx.example.com")
    files = write(tmp_path, "mx", mx)
    assert refusal(PairFiles(files.key, files.key)).startswith("mx.key holds no certificate")
    assert refusal(PairFiles(files.certificate, files.certificate)).startswith(
        "mx.pem holds no private key"
    )
    replace(files.certificate, mx.certificate_pem[:-100])
    assert refusal(files).startswith("mx.pem holds no certificate that can be read")
    replace(files.certificate, b"x" * (1024 * 1024 + 1))
    assert refusal(files).startswith("mx.pem is larger than")


def test_a_key_with_a_passphrase_is_not_asked_for(tmp_path: Path) -> None:
    mx = issue("mx.example.com")
    files = write(tmp_path, "mx", mx)
    replace(files.key, mx.key_pem(b"hush"))
    assert refusal(files) == "mx.key is encrypted; a server needs a key without a passphrase"


def test_a_key_that_nobody_accepts_any_more(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    mx = issue("mx.example.com", key=weak)
    assert refusal(write(tmp_path, "mx", mx)) == "mx.pem cannot be served: ee key too small"


@pytest.mark.parametrize("host", ["mx.example.com", "mx.bücher.example", "a." * 120 + "example"])
def test_self_signed(tmp_path: Path, host: str) -> None:
    files = PairFiles(str(tmp_path / "mx.pem"), str(tmp_path / "mx.key"))

    write_self_signed(host, files.certificate, files.key, NOW)

    pair = load_pair(files)
    assert pair.names[0].encode().decode("idna") == host
    assert os.stat(files.key).st_mode & 0o777 == 0o600
    assert pair.faults(NOW) == []
    assert ["is self-signed" in found for found in pair.advice(NOW)] == [True]
    with pytest.raises(FileExistsError):
        write_self_signed(host, files.certificate, files.key, NOW)


@pytest.mark.parametrize("last", ["mx.pem", "mx.key"])
def test_a_self_signed_pair_of_which_one_has_no_name_yet(tmp_path: Path, last: str) -> None:
    """Its writer was killed, or the machine has lost power, between two renames."""
    files = PairFiles(str(tmp_path / "mx.pem"), str(tmp_path / "mx.key"))
    write_self_signed("mx.example.com", files.certificate, files.key, NOW)
    made = (tmp_path / last).read_bytes()
    (tmp_path / last).rename(tmp_path / f"{last}.new")

    write_self_signed("mx.example.com", files.certificate, files.key, NOW)

    assert (tmp_path / last).read_bytes() == made
    assert len(list(tmp_path.iterdir())) == 2


def test_a_self_signed_pair_never_completes_somebody_elses(tmp_path: Path) -> None:
    """What a killed process left of both is no part of the key that lies there since."""
    files = PairFiles(str(tmp_path / "mx.pem"), str(tmp_path / "mx.key"))
    for name in ("mx.pem.new", "mx.key.new", "mx.key"):
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError):
        write_self_signed("mx.example.com", files.certificate, files.key, NOW)
    assert not (tmp_path / "mx.pem").exists()
