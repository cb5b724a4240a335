"""A DNS server on loopback: real packets by UDP and TCP, answers out of a table."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from restante.config.tree import HostPort

LOOPBACK = "127.0.0.1"
MAX_ALIASES = 8


@dataclass
class Zone:
    """What a server knows; a test may change it while the server runs."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(name, type) to values, as in master files: ("example.net", "MX") to ["10 mx.example."]."""
    ttl: int = 300
    minimum: int = 60
    """For how long it is known that something does not exist: SOA's last number, and its TTL."""
    failing: set[str] = field(default_factory=set)
    """Names that get SERVFAIL."""
    silent: set[str] = field(default_factory=set)
    """Names that get no answer."""
    truncated: set[str] = field(default_factory=set)
    """Names whose answers fit in TCP only."""
    questions: list[tuple[str, str, str]] = field(default_factory=list)
    """What was asked: name, type, and udp or tcp."""

    def asked(self, name: str, kind: str) -> int:
        """How often something was asked."""
        return sum(each[:2] == (name, kind) for each in self.questions)

    def answer(self, wire: bytes, how: str) -> bytes | None:
        """The answer's packet; None for silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.questions.append((name, kind, how))
        if name in self.silent:
            return None
        response = dns.message.make_response(query)
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name in self.truncated and how == "udp":
            response.flags |= dns.flags.TC
        else:
            self._fill(response, name, kind)
        return response.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(MAX_ALIASES):
            alias = self.records.get((name, "CNAME"))
            if alias is None:
                break
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", "CNAME", *alias))
            name = alias[0].rstrip(".")
        values = self.records.get((name, kind), [])
        if values:
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", kind, *values))
            return
        soa = f"ns. root. 1 3600 600 86400 {self.minimum}"
        response.authority.append(dns.rrset.from_text(".", self.minimum, "IN", "SOA", soa))
        if not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)


@contextlib.contextmanager
def nameserver(zone: Zone) -> Iterator[HostPort]:
    """A server in threads of its own; its address."""

    class Udp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            wire, sock = self.request
            answer = zone.answer(wire, "udp")
            if answer is not None:
                sock.sendto(answer, self.client_address)

    class Tcp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            (length,) = struct.unpack("!H", self.rfile.read(2))
            answer = zone.answer(self.rfile.read(length), "tcp")
            if answer is not None:
                self.wfile.write(struct.pack("!H", len(answer)) + answer)

    with (
        _both_ports() as (udp_socket, tcp_socket),
        _running(socketserver.ThreadingUDPServer, Udp, udp_socket),
        _running(socketserver.ThreadingTCPServer, Tcp, tcp_socket),
    ):
        yield HostPort(*udp_socket.getsockname())


@contextlib.contextmanager
def _both_ports() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A UDP and a TCP socket on one port."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp.bind((LOOPBACK, 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:  # another program has that port in TCP
            udp.close()
            tcp.close()
            continue
        tcp.listen()
        with udp, tcp:
            yield udp, tcp
        return


@contextlib.contextmanager
def _running(
    kind: type[socketserver.ThreadingUDPServer] | type[socketserver.ThreadingTCPServer],
    handler: type[socketserver.BaseRequestHandler],
    bound: socket.socket,
) -> Iterator[None]:
    server = kind((LOOPBACK, 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = bound
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
