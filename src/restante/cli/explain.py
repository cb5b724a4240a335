"""``restante explain`` as plain text and as JSON: one line a step, in the order of events."""

from __future__ import annotations

from dataclasses import asdict

from restante.address import shown
from restante.cli.output import count
from restante.routing.decision import (
    Decision,
    Instructions,
    Mailbox,
    Misconfigured,
    NoSuchUser,
    Remote,
    Unknown,
)
from restante.routing.expand import Act, Final, Leaf, Looping
from restante.routing.explanation import Explanation
from restante.routing.instructions import instruction_line
from restante.routing.trace import Question, Step
from restante.status import Reply

MAX_ROWS_SHOWN = 5
"""Rows of one answer that the text shows; JSON has all of them."""


def render(explanation: Explanation) -> str:
    """The explanation as text for a terminal, with a line end at its end."""
    lines = [f"Routing of {explanation.address.to_mailbox()}"]
    width = max((len(_question(each)) for each in _questions(explanation)), default=0)
    for entry in explanation.trace.entries:
        lines += _asked(entry, width) if isinstance(entry, Question) else [_step(entry)]
    lines += ["", f"Decision   {_plain(describe(explanation.decision))}"]
    lines += [
        f"           - {_plain(instruction)}" for instruction in _actions(explanation.decision)
    ]
    lines += [f"           {line}" for line in _destination(explanation.decision)]
    lines += [f"Leads to   {_leaf(leaf)}" for leaf in explanation.leaves]
    lines.append(f"A stranger hears at RCPT: {explanation.reply}")
    if explanation.reply_to_user != explanation.reply:
        lines.append(f"A user who has logged in hears: {explanation.reply_to_user}")
    if isinstance(explanation.decision, NoSuchUser) and explanation.reply_to_user.is_success:
        lines.append("Mail for it is taken and returned: setting receiver.verify_recipients")
    return "\n".join(lines) + "\n"


def describe(decision: Decision | Final) -> str:
    """A decision in one sentence without a full stop."""
    match decision:
        case Mailbox(account, delivered_to, maildir):
            rights = f"uid {account.uid}, gid {account.gid}"
            return f"mailbox of {account.name}: {maildir} ({rights}), Delivered-To: {delivered_to}"
        case Instructions(account, delivered_to, actions, _, source):
            whose = f"user {account.name}" if account else "the alias user"
            if not actions:
                return f"thrown away: {source} of {whose} has comments alone"
            some = count(len(actions), "instruction")
            return f"{some} of {whose} in {source}, Delivered-To: {delivered_to}"
        case Act(account, delivered_to, action, _):
            rights = f"uid {account.uid}, gid {account.gid}"
            line = instruction_line(action)
            return f"{line} of {account.name} ({rights}), Delivered-To: {delivered_to}"
        case Remote(address):
            return f"remote: {address.to_mailbox()} is for elsewhere"
        case NoSuchUser(_, why):
            return f"no such user: {why}"
        case Unknown(_, why):
            return f"cannot know: {why}"
        case Misconfigured(_, why):
            return f"misconfigured: {why}"
        case Looping(_, why):
            return f"a loop (554 5.4.6): {why}"


def to_json(explanation: Explanation) -> dict[str, object]:
    """The explanation out of dictionaries, lists, texts and numbers."""
    return {
        "address": explanation.address.to_mailbox(),
        "accepted": explanation.accepted,
        "steps": [_entry_json(entry) for entry in explanation.trace.entries],
        "decision": _decision_json(explanation.decision),
        "leads_to": [_leaf_json(leaf) for leaf in explanation.leaves],
        "reply": _reply_json(explanation.reply),
        "reply_to_user": _reply_json(explanation.reply_to_user),
    }


def _reply_json(reply: Reply) -> dict[str, object]:
    return {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text}


def _questions(explanation: Explanation) -> list[Question]:
    return [each for each in explanation.trace.entries if isinstance(each, Question)]


def _question(question: Question) -> str:
    return f"{question.table:<9}  {_plain(question.key)}"


def _asked(question: Question, width: int) -> list[str]:
    number = len(question.rows)
    found = count(number, "row") if not question.failure else "no answer"
    spent = f"{question.milliseconds:.2f} ms"
    lines = [f"    asked  {_question(question):<{width}}  {found:>9}  {spent:>10}"]
    lines += [f"           = {_plain(row)}" for row in question.rows[:MAX_ROWS_SHOWN]]
    if number > MAX_ROWS_SHOWN:
        lines.append(f"           = ... and {number - MAX_ROWS_SHOWN} more")
    if question.failure:
        lines.append(f"           ! {_plain(question.failure)}")
    return lines


def _step(step: Step) -> str:
    line = f"{step.label:<5} {_plain(step.text)}"
    return f"\n{line}" if step.text.endswith("?") else line


def _actions(decision: Decision) -> list[str]:
    if not isinstance(decision, Instructions):
        return []
    return [instruction_line(action) for action in decision.actions]


def _destination(decision: Decision) -> list[str]:
    """What programs are told, and who hears of failures, where that is not plain to see."""
    if not isinstance(decision, Instructions):
        return []
    destination = decision.destination
    told = [f"USER {destination.user}", f"EXT {destination.extension}"]
    if destination.default:
        told.append(f"DEFAULT {destination.default}")
    lines = [_plain(", ".join(told))] if destination.extension else []
    if destination.new_sender:
        lines.append(_plain(f"reports about what is sent on go to {shown(destination.new_sender)}"))
    return lines


def _leaf(leaf: Leaf) -> str:
    via = f" (by way of {', '.join(map(shown, leaf.via))})" if leaf.via else ""
    sender = f" (from {shown(leaf.new_sender)})" if leaf.new_sender else ""
    return _plain(f"{leaf.address.to_mailbox()} -> {describe(leaf.decision)}{via}{sender}")


def _plain(text: str) -> str:
    """``text`` without what a terminal would obey: rows are not to be trusted with that."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _entry_json(entry: Step | Question) -> dict[str, object]:
    if isinstance(entry, Step):
        return {"step": entry.label, "text": entry.text}
    return {
        "table": entry.table,
        "key": entry.key,
        "rows": list(entry.rows),
        "milliseconds": round(entry.milliseconds, 3),
        "failure": entry.failure,
    }


def _decision_json(decision: Decision | Final) -> dict[str, object]:
    said: dict[str, object] = {"kind": _KINDS[type(decision)], "text": describe(decision)}
    if isinstance(decision, Mailbox | Instructions | Act):
        said["account"] = decision.account.name if decision.account else None
        said["uid"] = decision.account.uid if decision.account else None
        said["gid"] = decision.account.gid if decision.account else None
        said["delivered_to"] = decision.delivered_to
    if isinstance(decision, Mailbox):
        said["maildir"] = decision.maildir
    if isinstance(decision, Act):
        said["instruction"] = instruction_line(decision.action)
    if isinstance(decision, Instructions):
        said["instructions"] = _actions(decision)
        said["source"] = decision.source
        said["destination"] = asdict(decision.destination)
    return said


def _leaf_json(leaf: Leaf) -> dict[str, object]:
    return {
        "address": leaf.address.to_mailbox(),
        "via": list(map(shown, leaf.via)),
        "new_sender": shown(leaf.new_sender) or None,
        "decision": _decision_json(leaf.decision),
    }


_KINDS: dict[type, str] = {
    Mailbox: "mailbox",
    Instructions: "instructions",
    Act: "act",
    Remote: "remote",
    NoSuchUser: "no_such_user",
    Unknown: "unknown",
    Misconfigured: "misconfigured",
    Looping: "looping",
}
