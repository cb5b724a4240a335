"""The mail log: one typed function per event; metrics hang on the same events.

Every event is documented in docs/log.md; a test holds the two together. A
message is followed from connection to mailbox by its ``id``, a connection by
its ``session``. Passwords never reach this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice

from restante.address import shown
from restante.eventlog import log as _log
from restante.metrics import Meter
from restante.status import Peer, PermanentFailure, Reply, TemporaryFailure

_meter = Meter()
RECIPIENTS_SHOWN = 15
"""Of one line: the longest of addresses are not cut then (``logsetup.MAX_VALUE``)."""
_NOBODY = Peer("", "", "")
"""What stands for the other host where it was this one that failed."""


def measure_with(meter: Meter) -> None:
    """Count events with ``meter`` from now on, in this process; no event itself."""
    global _meter  # noqa: PLW0603 - the mail log is the process's own
    _meter = meter


# The server


def server_started(version: str, directory: str, workers: int) -> None:
    """The supervisor has read its settings and has its listeners."""
    _log.info("server_started", version=version, directory=directory, workers=workers)


def listening(service: str, address: str) -> None:
    """A service accepts connections at an address."""
    _log.info("listening", service=service, address=address)


def server_ready() -> None:
    """Every worker serves."""
    _log.info("server_ready")


def server_reloaded() -> None:
    """SIGHUP: the new settings are in force for every SMTP and POP3 connection from now on."""
    _log.info("server_reloaded")


def reload_refused(problems: Sequence[str]) -> None:
    """SIGHUP: the new settings are wrong; the old ones stay in force."""
    _log.error("reload_refused", problems=list(problems))


def server_stopping(reason: str) -> None:
    """No more connections are accepted; sessions may finish their last command."""
    _log.info("server_stopping", reason=reason)


def server_stopped() -> None:
    """Everything is closed."""
    _log.info("server_stopped")


def worker_started(slot: int, pid: int) -> None:
    """A worker serves."""
    _log.info("worker_started", slot=slot, pid=pid)


def worker_failed(slot: int, why: str) -> None:
    """A worker cannot serve, and only the operator can help; it is tried again."""
    _log.error("worker_failed", slot=slot, why=why)


def worker_left(slot: int, pid: int) -> None:
    """A worker that was asked to leave has closed its sessions, and is gone."""
    _log.info("worker_left", slot=slot, pid=pid)


def worker_ended(slot: int, pid: int, status: int) -> None:
    """A worker's process is gone, and should not be; ``status`` is negative for a signal."""
    _log.warning("worker_ended", slot=slot, pid=pid, status=status)


def control_read(directory: str, passed_over: list[str]) -> None:
    """Settings were taken of a control directory, at the start or a reload."""
    _log.info("control_read", directory=directory, passed_over=passed_over)


def control_reread(changed: list[str], passed_over: list[str]) -> None:
    """A worker heeds control files that have changed."""
    _log.info("control_reread", changed=changed, passed_over=passed_over)


def control_refused(problems: list[str]) -> None:
    """A worker cannot use control files that have changed; the old settings stay in force."""
    _log.error("control_refused", problems=problems)


def servant_started(name: str, pid: int) -> None:
    """The registrar, who knows whose an account is, or the nursery, which has the helpers."""
    _log.info("servant_started", name=name, pid=pid)


def servant_failed(why: str) -> None:
    """One of them cannot be started, and only the operator can help; it is tried again."""
    _log.error("servant_failed", why=why)


def servant_ended(name: str, pid: int, status: int) -> None:
    """One of them ended though nobody had told it to; ``status`` is negative for a signal."""
    _log.warning("servant_ended", name=name, pid=pid, status=status)


def request_refused(slot: int, name: str, why: str) -> None:
    """A worker asked the supervisor for something that no worker of ours has to ask for."""
    _log.error("request_refused", slot=slot, name=name, why=why)


def unplanned(where: str, error: BaseException) -> None:
    """A bug: an exception that nobody foresaw, with its trace. It was treated as temporary."""
    _meter.unplanned()
    _log.error("unplanned", where=where, exc_info=error)


def helper_remark(uid: int, text: str) -> None:
    """What the helper of a uid has to say: it met a bug, with its trace."""
    _meter.unplanned()
    _log.error("helper_remark", uid=uid, text=text)


# The database


def database_away(why: str) -> None:
    """The database could not be asked; look-ups are temporary failures until database_back."""
    _meter.database(up=False)
    _log.error("database_away", why=why)


def database_back() -> None:
    """The database answers again."""
    _meter.database(up=True)
    _log.info("database_back")


def database_server(server: str) -> None:
    """Look-ups go to another of the servers that database.url names."""
    _log.warning("database_server", server=server)


def sql(statement: str, parameters: str, rows: int, milliseconds: float) -> None:
    """A statement, when log.sql asks for it."""
    _log.info(
        "sql", statement=statement, parameters=parameters, rows=rows, ms=round(milliseconds, 3)
    )


# Sessions


def session_opened(session: str, service: str, peer: str) -> None:
    """A client connected."""
    _meter.session_opened(service)
    _log.info("session_opened", session=session, service=service, peer=peer)


def session_refused(service: str, peer: str, reason: str) -> None:
    """A client was turned away at once: a limit is reached."""
    _meter.session_refused(service)
    _log.warning("session_refused", service=service, peer=peer, reason=reason)


def session_closed(session: str, service: str, reason: str, seconds: float) -> None:
    """A connection ended; docs/log.md has the reasons."""
    _meter.session_closed(service, seconds)
    _log.info(
        "session_closed", session=session, service=service, reason=reason, seconds=round(seconds, 3)
    )


# TLS


def tls_started(session: str, version: str, cipher: str, sni: str) -> None:
    """A handshake is done; ``sni`` is the host that the client asked for, or empty."""
    _log.info("tls_started", session=session, version=version, cipher=cipher, sni=sni)


def tls_failed(session: str, peer: str, why: str) -> None:
    """A handshake was not finished; the connection is closed."""
    _log.warning("tls_failed", session=session, peer=peer, why=why)


def certificate_loaded(path: str, names: Sequence[str], expires: datetime) -> None:
    """A certificate that has changed is served from now on."""
    _log.info(
        "certificate_loaded",
        path=path,
        names=",".join(names),
        expires=_moment(expires.timestamp()),
    )


def certificate_refused(path: str, why: str) -> None:
    """A certificate that has changed cannot be served; the one from before still is."""
    _log.error("certificate_refused", path=path, why=why)


def certificate_doubtful(path: str, why: str) -> None:
    """A certificate is served that clients will refuse, or soon will."""
    _log.warning("certificate_doubtful", path=path, why=why)


# Mail in


def sender_refused(session: str, sender: str, account: str, reply: Reply, why: str) -> None:
    """MAIL was answered with a failure; ``account`` has logged in, or is empty."""
    _meter.refused("mail", reply.code)
    _log.info(
        "sender_refused",
        session=session,
        sender=shown(sender),
        account=account,
        reply=str(reply),
        why=why,
    )


def rate_limited(session: str, account: str, limit: str, allowed: int) -> None:
    """An account has sent as much as it may; what it tries to send now gets 452."""
    _log.warning("rate_limited", session=session, account=account, limit=limit, allowed=allowed)


def usage_failed(why: str) -> None:
    """What accounts send cannot be counted; what they send gets 451 until it can."""
    _log.error("usage_failed", why=why)


def recipient_refused(
    session: str, id: str, sender: str, recipient: str, reply: Reply, why: str
) -> None:
    """RCPT was answered with a failure; ``why`` is more than the peer was told."""
    _meter.refused("rcpt", reply.code)
    _log.info(
        "recipient_refused",
        session=session,
        id=id,
        sender=shown(sender),
        recipient=shown(recipient),
        reply=str(reply),
        why=why,
    )


def message_accepted(
    session: str,
    id: str,
    sender: str,
    account: str,
    recipients: int,
    size: int,
    how: str,
    seconds: float,
) -> None:
    """A message is durable and was acknowledged; ``how`` is ``delivered`` or ``queued``.

    ``account`` is who sent it, where somebody had logged in.
    """
    _meter.message_accepted(how, size, seconds)
    _log.info(
        "message_accepted",
        session=session,
        id=id,
        sender=shown(sender),
        account=account,
        recipients=recipients,
        size=size,
        how=how,
        seconds=round(seconds, 4),
    )


def message_refused(
    session: str, id: str, sender: str, recipients: Iterable[str], reply: Reply, why: str
) -> None:
    """A message was not accepted after its content was sent."""
    _meter.refused("data", reply.code)
    _log.info(
        "message_refused",
        session=session,
        id=id,
        sender=shown(sender),
        recipients=_first(recipients),
        reply=str(reply),
        why=why,
    )


def message_broken_off(
    session: str,
    id: str,
    sender: str,
    account: str,
    recipients: Iterable[str],
    octets: int,
    reason: str,
) -> None:
    """A session ended before a message was answered that had recipients already."""
    _log.info(
        "message_broken_off",
        session=session,
        id=id,
        sender=shown(sender),
        account=account,
        recipients=_first(recipients),
        octets=octets,
        reason=reason,
    )


def message_not_kept(id: str, why: str) -> None:
    """There is no place for a message: the disk is full or fails, or the queue is full."""
    _log.error("message_not_kept", id=id, why=why)


# Mail from programs on this host


def picked_up(
    id: str, uid: int, sender: str, recipients: int, size: int, waited: float, seconds: float
) -> None:
    """A message that a program left is in the queue, and no longer where it was left."""
    _meter.message_accepted("queued", size, seconds)
    _log.info(
        "picked_up",
        id=id,
        uid=uid,
        sender=shown(sender),
        recipients=recipients,
        size=size,
        waited=round(waited, 3),
        seconds=round(seconds, 4),
    )


def drop_refused(name: str, uid: int, why: str) -> None:
    """A dropped file is no message, and was moved aside; ``uid`` is its owner's."""
    _log.warning("drop_refused", name=name, uid=uid, why=why)


def drop_failed(path: str, why: str) -> None:
    """What was dropped cannot be picked up now, and waits."""
    _log.error("drop_failed", path=path, why=why)


# Delivery and queue


def attempt_begun(id: str, lane: str) -> None:
    """A queued message is tried in a lane: whatever ends the process now may be its doing."""
    _log.debug("attempt_begun", id=id, lane=lane)


def delivered(id: str, recipient: str, detail: str) -> None:
    """One recipient here has the message, durably; ``detail`` says where."""
    _meter.attempted("delivered")
    _log.info("delivered", id=id, recipient=shown(recipient), detail=detail)


def sent(id: str, recipient: str, peer: Peer, reply: str) -> None:
    """Another host has accepted the message for one recipient."""
    _meter.attempted("delivered")
    _log.info(
        "sent",
        id=id,
        recipient=shown(recipient),
        host=peer.host,
        address=peer.address,
        tls=peer.tls,
        reply=reply,
    )


def deferred(
    id: str,
    recipient: str,
    answer: TemporaryFailure,
    attempts: int,
    next_attempt: float | None,
) -> None:
    """One recipient is tried again later; ``next_attempt`` is in seconds since the epoch.

    None: when an operator says so.
    """
    _meter.attempted("deferred")
    peer = answer.peer or _NOBODY
    _log.warning(
        "deferred",
        id=id,
        recipient=shown(recipient),
        reply=str(answer.reply),
        detail=answer.detail,
        host=peer.host,
        address=peer.address,
        command=peer.command,
        tls=peer.tls,
        attempts=attempts,
        next_attempt="" if next_attempt is None else _moment(next_attempt),
    )


def failed(id: str, recipient: str, answer: PermanentFailure | TemporaryFailure) -> None:
    """One recipient is given up."""
    _meter.attempted("failed")
    peer = answer.peer or _NOBODY
    _log.warning(
        "failed",
        id=id,
        recipient=shown(recipient),
        reply=str(answer.reply),
        detail=answer.detail,
        host=peer.host,
        address=peer.address,
        command=peer.command,
        tls=peer.tls,
    )


def expanded(id: str, recipient: str, targets: int) -> None:
    """An alias was replaced by its targets."""
    _log.info("expanded", id=id, recipient=shown(recipient), targets=targets)


def partly_delivered(id: str, recipient: str, detail: str) -> None:
    """One instruction of several was done; those that are left follow at once."""
    _log.info("partly_delivered", id=id, recipient=shown(recipient), detail=detail)


def bounced(id: str, bounce: str, recipient: str) -> None:
    """A report of a failure of message ``id`` is queued under the id ``bounce`` for its sender."""
    _meter.bounced()
    _meter.waiting(1)
    _log.info("bounced", id=id, bounce=bounce, recipient=shown(recipient))


def reported(id: str, report: str, recipient: str, actions: str) -> None:
    """A report that tells of no failure is queued under the id ``report`` for the sender."""
    _meter.waiting(1)
    _log.info("reported", id=id, report=report, recipient=shown(recipient), actions=actions)


def bounce_dropped(id: str, why: str) -> None:
    """A failed bounce had nowhere to go."""
    _log.error("bounce_dropped", id=id, why=why)


def moved(id: str, recipient: str, lane: str) -> None:
    """One recipient is tried in another lane from now on: the next hop, or here if it is empty."""
    _log.info("moved", id=id, recipient=shown(recipient), lane=lane)


def lane_blocked(lane: str, why: str, until: float) -> None:
    """A next hop as a whole is left alone until then, in seconds since the epoch."""
    _log.warning("lane_blocked", lane=lane, why=why, until=_moment(until))


def lane_recovered(lane: str) -> None:
    """A next hop that had been left alone works again."""
    _log.info("lane_recovered", lane=lane)


def clock_set_back(path: str, seconds: float) -> None:
    """The time of day went back; what waits in the queue was brought forward by as much."""
    _log.warning("clock_set_back", path=path, seconds=round(seconds))


def queue_unattended(path: str, seconds: float) -> None:
    """Nobody looked at the queue for so long, or the clock jumped ahead by so much."""
    _log.warning("queue_unattended", path=path, seconds=round(seconds))


def message_finished(id: str) -> None:
    """A message left the queue; every recipient is settled."""
    _meter.waiting(-1)
    _log.info("message_finished", id=id)


def queue_opened(path: str, messages: int) -> None:
    """A worker has a queue; ``messages`` wait in it."""
    _meter.waiting(messages)
    _log.info("queue_opened", path=path, messages=messages)


def bodies_left(path: str, bodies: int, left: str) -> None:
    """A queue had large bodies of which it knows nothing; they are in the directory ``left``."""
    _log.warning("bodies_left", path=path, bodies=bodies, left=left)


def queue_changed(path: str, messages: int, change: int) -> None:
    """An operator changed a queue; ``messages`` wait in it now, ``change`` more than before."""
    _meter.waiting(change)
    _log.info("queue_changed", path=path, messages=messages)


def operated(queue_id: str, change: str, recipients: Sequence[str], uid: int) -> None:
    """A user of this host changed what becomes of these recipients of a message."""
    _log.info("operated", id=queue_id, change=change, recipients=[*map(shown, recipients)], uid=uid)


def queue_failed(path: str, why: str) -> None:
    """The queue's own database or disk fails; mail that must wait is refused with 4xx."""
    _log.error("queue_failed", path=path, why=why)


# Mail to other hosts


def relay_opened(host: str, address: str, tls: str, seconds: float) -> None:
    """A connection to another host is ready for messages, after so long."""
    _meter.relay_connection("good")
    _log.info("relay_opened", host=host, address=address, tls=tls, seconds=round(seconds, 3))


def relay_failed(host: str, address: str, command: str, tls: str, reply: str, detail: str) -> None:
    """No messages can be sent to an address of another host now."""
    _meter.relay_connection("failed")
    _log.warning(
        "relay_failed",
        host=host,
        address=address,
        command=command,
        tls=tls,
        reply=reply,
        detail=detail,
    )


def relay_tls_failed(host: str, address: str, why: str) -> None:
    """TLS with a host failed where it is not required; clear text is tried next."""
    _meter.relay_connection("without tls")
    _log.warning("relay_tls_failed", host=host, address=address, why=why)


def relay_closed(host: str, address: str, messages: int, seconds: float, reason: str) -> None:
    """A connection that was ready ended, after so many messages."""
    _log.info(
        "relay_closed",
        host=host,
        address=address,
        messages=messages,
        seconds=round(seconds, 3),
        reason=reason,
    )


# Mail out


def login(session: str, service: str, peer: str, login: str, account: str) -> None:
    """Somebody logged in."""
    _meter.login(service, "good")
    _log.info("login", session=session, service=service, peer=peer, login=login, account=account)


def guessing(scope: str, name: str, peer: str, guesses: int) -> None:
    """So many wrong passwords were tried that an account or a network is refused for a while."""
    _log.warning("guessing", scope=scope, name=name, peer=peer, guesses=guesses)


def guessing_failed(why: str) -> None:
    """Wrong passwords cannot be counted; logins go on."""
    _log.error("guessing_failed", why=why)


def socket_failed(path: str, why: str) -> None:
    """A socket for other processes of this host cannot be listened at, or accepts nobody."""
    _log.error("socket_failed", path=path, why=why)


def metrics_failed(path: str, why: str) -> None:
    """A worker has no place for its figures, and serves without."""
    _log.error("metrics_failed", path=path, why=why)


def user_not_found(login: str, why: str) -> None:
    """A checkpassword program asked whose a login is, and it cannot be known."""
    _log.error("user_not_found", login=login, why=why)


def login_refused(
    session: str, service: str, peer: str, login: str, reason: str, detail: str
) -> None:
    """Somebody did not: unknown user, wrong password or system error; ``detail`` says more."""
    _meter.login(service, reason)
    _log.warning(
        "login_refused",
        session=session,
        service=service,
        peer=peer,
        login=login,
        reason=reason,
        detail=detail,
    )


def password_upgraded(account: str) -> None:
    """A hash was replaced by a better one, at its owner's login."""
    _log.info("password_upgraded", account=account)


def password_not_upgraded(account: str, why: str) -> None:
    """A better hash could not be written; the old one stands."""
    _log.warning("password_not_upgraded", account=account, why=why)


def maildrop_opened(session: str, account: str, messages: int, size: int) -> None:
    """A POP3 session has its maildrop; ``size`` in octets."""
    _log.info("maildrop_opened", session=session, account=account, messages=messages, size=size)


def maildrop_refused(session: str, account: str, why: str) -> None:
    """A maildrop could not be opened, or not be changed."""
    _log.warning("maildrop_refused", session=session, account=account, why=why)


def maildrop_closed(session: str, account: str, retrieved: int, deleted: int) -> None:
    """A POP3 session gave its maildrop back."""
    _log.info(
        "maildrop_closed", session=session, account=account, retrieved=retrieved, deleted=deleted
    )


def _first(recipients: Iterable[str]) -> list[str]:
    return [*map(shown, islice(recipients, RECIPIENTS_SHOWN))]


def _moment(seconds: float) -> str:
    """A time as the lines' own timestamps write it, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
