"""What is left of a list, step by step; that the queue's text of it says the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restante.address import NULL_REVERSE_PATH, Address, ReversePath, sender_for
from restante.routing.decision import ToForward, ToMaildir, ToMbox, ToProgram
from restante.routing.instructions import (
    MAX_COMMAND,
    MAX_INSTRUCTION,
    BadInstruction,
    parse_instruction,
)
from restante.routing.owner import sender_of_list
from restante.routing.sequence import Step, from_text, is_sequence, next_step, to_text

ANN = ToForward(Address("ann", "x.org"))
BOB = ToForward(Address("bob", "x.org"))
MAILDIR, MBOX, PROGRAM = ToMaildir("./Maildir/"), ToMbox("./mbox"), ToProgram("a")


def test_a_list_with_a_program_is_one_target() -> None:
    assert not is_sequence([ANN, MAILDIR, MBOX])
    assert is_sequence([PROGRAM])
    assert is_sequence([ANN, PROGRAM, MAILDIR])


def test_forwards_come_last() -> None:
    assert next_step([ANN, BOB]) is None
    assert next_step([ANN, PROGRAM, BOB, MBOX]) == Step(PROGRAM, (ANN, BOB, MBOX), (ANN,))
    assert next_step([MAILDIR]) == Step(MAILDIR, (), ())


@pytest.mark.parametrize("local", ["a..b", "a.", ".a", "a...b.", "."])
def test_dots_of_an_address_need_no_quotes(local: str) -> None:
    """Addresses that hosts have given out, and qmail has always sent to."""
    expected = ToForward(Address(local, "x.org"))
    assert parse_instruction(f"&{local}@X.org") == expected
    assert parse_instruction(f"&<{local}@x.org>") == expected
    assert parse_instruction(f'&"{local}"@x.org') == expected


@pytest.mark.parametrize(
    "text", ["a..b", "a..b@", "a..b@x..org", "a b@x.org", "a@b@x.org", "a.,b@x.org"]
)
def test_what_is_no_address_for_all_its_dots(text: str) -> None:
    with pytest.raises(BadInstruction):
        parse_instruction(f"&{text}")


def test_commands_may_be_as_long_as_a_row_can_have_them() -> None:
    """qmail has no limit; a forward and a path that are so long can be none."""
    command = "forward " + " ".join(f"member{number}@far.example" for number in range(2000))
    assert parse_instruction(f"| {command}") == ToProgram(command)
    longest = "é" * ((MAX_COMMAND - 1) // 2)
    assert parse_instruction(f"|{longest}") == ToProgram(longest)
    for line in (
        f"|{longest}é",
        "|" + "\udcff" * MAX_COMMAND,
        f"&{longest}@x.org",
        f"./{longest}/",
    ):
        with pytest.raises(BadInstruction, match="is too long") as refused:
            parse_instruction(line)
        assert len(str(refused.value)) < 400
    with pytest.raises(BadInstruction, match="holds a NUL") as refused:
        parse_instruction(f"|{longest}\0")
    assert len(str(refused.value)) < 2 * MAX_INSTRUCTION


@given(st.lists(st.text(), min_size=1))
def test_the_text_of_a_list_says_the_same(lines: list[str]) -> None:
    """Invariant: whatever can be parsed comes back from the queue as it was."""
    actions = []
    for line in lines:
        try:
            action = parse_instruction(line)
        except BadInstruction:
            continue
        if action is not None:
            actions.append(action)
    if actions:
        assert from_text(to_text(actions)) == tuple(actions)


@given(st.lists(st.sampled_from([ANN, BOB, MAILDIR, MBOX, PROGRAM])))
def test_every_step_leaves_less(actions: list[ToForward | ToMaildir | ToMbox | ToProgram]) -> None:
    """Invariant: so that every list comes to an end, with its forwards in their order."""
    left = tuple(actions)
    while step := next_step(left):
        assert len(step.rest) == len(left) - 1
        assert step.rest_of_last == step.rest[: len(step.rest_of_last)]
        left = step.rest
    assert left == tuple(action for action in actions if isinstance(action, ToForward))


@pytest.mark.parametrize(
    ("new_sender", "recipient", "expected"),
    [
        ("", "ann@x.org", ""),
        ("l-owner@h", "ann@x.org", "l-owner@h"),
        ("l-owner-@h-@[]", "ann@x.org", "l-owner-ann=x.org@h"),
        ("l-owner-@h-@[]", "a@b@x.org", "l-owner-a@b=x.org@h"),
        ("l-owner-@h-i-@[]", "a=b@x.org", "l-owner-a=b=x.org@h-i"),
        ("l-owner-@h-@[]", "ann@bücher.org", "l-owner-ann=xn--bcher-kva.org@h"),
    ],
)
def test_the_sender_of_a_copy(new_sender: str, recipient: str, expected: str) -> None:
    assert sender_for(new_sender, Address.from_stored(recipient)) == expected


@pytest.mark.parametrize(
    ("sender", "expected"),
    [(Address("ann", "x.org"), "l-owner@h"), (NULL_REVERSE_PATH, "")],
)
def test_reports_have_no_owner(sender: ReversePath, expected: str) -> None:
    assert sender_of_list("l-owner@h", sender) == expected
