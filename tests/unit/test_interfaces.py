"""Which IP addresses are this host's own."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

import pytest

from restante.interfaces import is_own_address
from tests.support.owner import only_root

_NETWORK = """
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
ip link add front type veth peer name far
ip link set far up
ip link set front up
ip address add 192.0.2.5/24 dev front
ip address add 192.0.2.6/24 dev front
ip -6 address add 2001:db8::5/64 dev front nodad
ip -6 address add 2001:db8::6/64 dev front nodad
ip route add default dev front
ip -6 route add default dev front
echo "$1" | tee /proc/sys/net/ipv4/ip_nonlocal_bind > /proc/sys/net/ipv6/ip_nonlocal_bind
shift
exec "$@"
"""
_ASK = """
import ipaddress, sys
from restante.interfaces import is_own_address
print(*(each for each in sys.argv[1:] if is_own_address(ipaddress.ip_address(each))))
"""
OWN = (
    *("127.0.0.1", "127.0.0.99", "0.0.0.0", "192.0.2.5", "192.0.2.6", "::ffff:192.0.2.6"),
    *("::1", "::", "2001:db8::5", "2001:db8::6"),
)
FOREIGN = ("192.0.2.7", "198.51.100.1", "::ffff:192.0.2.7", "2001:db8::7", "2001:db8:1::1")


def test_own_addresses() -> None:
    for own in ("127.0.0.1", "127.0.0.99", "0.0.0.0", "::ffff:127.0.0.1"):
        assert is_own_address(ip_address(own))
    for foreign in ("192.0.2.1", "2001:db8::1", "fe80::1"):
        assert not is_own_address(ip_address(foreign))


@only_root
@pytest.mark.parametrize("nonlocal_bind", ["0", "1"])
def test_addresses_that_anybody_may_bind_to_are_not_all_own(nonlocal_bind: str) -> None:
    within = ["unshare", "--net", "sh", "-ec", _NETWORK, "sh", nonlocal_bind]
    ask = [sys.executable, "-c", _ASK, *OWN, *FOREIGN]
    done = subprocess.run([*within, *ask], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == list(OWN)
