"""The proof that opens a TCP channel: both sides are sure of each other, and every changed field is refused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tune.trial_sdk import proof, wire
from tune.trial_sdk.proof import Challenge, Dial, EngineSide, KeeperSide, NotProven, Proof

TOKEN, OTHER = bytes(range(32)), bytes(range(1, 33))
KEEPER, ENGINE, DECOY = b"k" * 32, b"e" * 32, b"d" * 32
PRINT, OTHER_PRINT = "aa" * 32, "bb" * 32


def sides(
    *,
    name: str = "local",
    token: bytes = TOKEN,
    known: dict[str, bytes] | None = None,
    nonces: tuple[bytes, bytes] = (KEEPER, ENGINE),
    bindings: tuple[str, str] = (PRINT, PRINT),
) -> tuple[KeeperSide, EngineSide]:
    tokens = {"local": TOKEN} if known is None else known
    return (
        KeeperSide(name, token, nonces[0], bindings[0]),
        EngineSide(tokens.get, nonces[1], DECOY, bindings[1]),
    )


def talk(keeper: KeeperSide, engine: EngineSide) -> list[bytes]:
    """Let the two talk to the end: the four messages."""
    said = [keeper.begin()]
    said.append(engine.feed(said[-1]))
    said.append(keeper.feed(said[-1]))
    said.append(engine.feed(said[-1]))
    assert keeper.feed(said[-1]) == b""
    return said


def body(framed: bytes, kind: type[Any]) -> Any:
    return msgspec.msgpack.decode(framed[4:], type=kind)


def test_both_prove_themselves_and_the_token_is_in_no_message() -> None:
    keeper, engine = sides()
    said = talk(keeper, engine)
    assert keeper.proven and engine.proven and engine.name == "local"
    assert not any(TOKEN in one or TOKEN.hex().encode() in one for one in said)
    assert body(said[2], Proof) != body(said[3], Proof)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_bytes_may_come_in_any_pieces(data: st.DataObject) -> None:
    keeper, engine = sides()

    def pieces(whole: bytes, feed: Any) -> bytes:
        out = b""
        while whole:
            size = data.draw(st.integers(1, len(whole)))
            out += feed(whole[:size])
            whole = whole[size:]
        return out

    challenge = pieces(keeper.begin(), engine.feed)
    welcome = pieces(pieces(challenge, keeper.feed), engine.feed)
    assert engine.proven and not keeper.proven
    pieces(welcome + b"Attach", keeper.feed)
    assert keeper.proven and keeper.rest() == b"Attach" and keeper.rest() == b""


@pytest.mark.parametrize(
    "change",
    [
        {"token": OTHER},
        {"name": "other"},
        {"known": {}},
        {"known": {"local": OTHER}},
        {"bindings": (PRINT, OTHER_PRINT)},
        {"bindings": (PRINT, "")},
        {"bindings": ("", PRINT)},
    ],
)
def test_a_side_that_knows_or_sees_something_else_is_refused(change: dict[str, Any]) -> None:
    keeper, engine = sides(**change)
    with pytest.raises(NotProven, match="does not know the token"):
        talk(keeper, engine)
    assert not keeper.proven and not engine.proven


def test_an_unknown_name_is_answered_as_a_wrong_token_is() -> None:
    answers = []
    for change in ({"token": OTHER}, {"known": {}}):
        keeper, engine = sides(**change)
        challenge = engine.feed(keeper.begin())
        with pytest.raises(NotProven) as refused:
            engine.feed(keeper.feed(challenge))
        answers.append((challenge, str(refused.value)))
    assert answers[0] == answers[1]


def test_the_decoy_proves_nothing() -> None:
    """Who knew the random bytes that stand in for an unknown name's token would still not get in."""
    keeper, engine = sides(token=DECOY, known={})
    with pytest.raises(NotProven):
        talk(keeper, engine)


def test_a_token_that_dies_in_the_middle_is_refused() -> None:
    known = {"local": TOKEN}
    keeper, engine = sides(known=known)
    answer = keeper.feed(engine.feed(keeper.begin()))
    known.clear()
    with pytest.raises(NotProven):
        engine.feed(answer)


def test_an_engine_without_the_token_is_refused() -> None:
    keeper, engine = sides()
    keeper.feed(engine.feed(keeper.begin()))
    wrong = proof.mac(OTHER, "engine", "local", KEEPER, ENGINE, PRINT)
    with pytest.raises(NotProven, match="who listens there"):
        keeper.feed(wire.frame(msgspec.msgpack.encode(Proof(wrong))))
    assert not keeper.proven


def test_reflected_and_replayed_messages_are_refused() -> None:
    keeper, engine = sides()
    said = talk(keeper, engine)
    # a listener that sends back what it hears: its nonce is the keeper's own, and so is its proof
    mirror, _ = sides()
    mine = mirror.feed(wire.frame(msgspec.msgpack.encode(Challenge(KEEPER))))
    with pytest.raises(NotProven):
        mirror.feed(mine)
    # the recorded keeper before an engine with a fresh nonce
    _, fresh = sides(nonces=(KEEPER, b"f" * 32))
    fresh.feed(said[0])
    with pytest.raises(NotProven):
        fresh.feed(said[2])
    # the recorded engine before a keeper with a fresh nonce
    again, _ = sides(nonces=(b"g" * 32, ENGINE))
    again.feed(said[1])
    with pytest.raises(NotProven):
        again.feed(said[3])
    # the engine's own proof as a keeper's
    _, engine = sides()
    engine.feed(said[0])
    with pytest.raises(NotProven):
        engine.feed(said[3])


def test_every_flipped_bit_is_refused() -> None:
    """Each bit of each message in turn: at the end never are both sides sure, and never is one that was lied to."""
    clean = talk(*sides())
    for index in range(4):
        for bit in range(8 * len(clean[index])):
            keeper, engine = sides()

            def changed(framed: bytes, at: int, index: int = index, bit: int = bit) -> bytes:
                made = bytearray(framed)
                if at == index:
                    made[bit // 8] ^= 1 << bit % 8
                return bytes(made)

            try:
                challenge = engine.feed(changed(keeper.begin(), 0))
                answer = keeper.feed(changed(challenge, 1))
                welcome = engine.feed(changed(answer, 2))
                keeper.feed(changed(welcome, 3))
            except NotProven:
                pass
            assert not keeper.proven, (index, bit)
            assert not engine.proven or index == 3, (index, bit)


FIELDS = ("token", "role", "name", "keeper_nonce", "engine_nonce", "binding")


@given(st.sampled_from(FIELDS), st.binary(min_size=1, max_size=40))
def test_every_field_is_in_the_proof(field: str, other: bytes) -> None:
    fields: dict[str, Any] = {
        **{"token": TOKEN, "role": "keeper", "name": "local"},
        **{"keeper_nonce": KEEPER, "engine_nonce": ENGINE, "binding": PRINT},
    }
    new = other if isinstance(fields[field], bytes) else other.hex()
    same = new == fields[field]
    assert (proof.mac(**fields) == proof.mac(**{**fields, field: new})) is same


@given(st.lists(st.text(max_size=8), min_size=3, max_size=3), st.lists(st.text(max_size=8), min_size=3, max_size=3))
def test_what_is_cut_otherwise_is_another_transcript(one: list[str], two: list[str]) -> None:
    made = [proof.mac(TOKEN, a, b, KEEPER, ENGINE, c) for a, b, c in (one, two)]
    assert (made[0] == made[1]) is (one == two)


def test_the_protocol_s_version_is_checked_and_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine = sides()
    with pytest.raises(NotProven, match="version 2 of the proof is not 1"):
        engine.feed(wire.frame(msgspec.msgpack.encode(Dial("local", KEEPER, 2))))
    keeper, _ = sides()
    with pytest.raises(NotProven, match="version 0"):
        keeper.feed(wire.frame(msgspec.msgpack.encode(Challenge(ENGINE, 0))))
    before = proof.mac(TOKEN, "keeper", "local", KEEPER, ENGINE, "")
    monkeypatch.setattr(proof, "VERSION", 2)
    assert proof.mac(TOKEN, "keeper", "local", KEEPER, ENGINE, "") != before


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ((1 << 31).to_bytes(4, "big"), "2147483648 bytes"),
        ((513).to_bytes(4, "big"), "at most 512"),
        (b"GET / HTTP/1.1\r\n\r\n", "at most 512"),
        (wire.frame(b"\xc1"), "no message"),
        (wire.frame(b"\x91" * 400), "no message"),
        (wire.frame(msgspec.msgpack.encode(Proof(KEEPER))), "no message"),
        (wire.frame(msgspec.msgpack.encode(Dial("no name\n", KEEPER))), "no name"),
        (wire.frame(msgspec.msgpack.encode(Dial("", KEEPER))), "no name"),
        (wire.frame(msgspec.msgpack.encode(Dial("local", b"short"))), "a nonce of 5 bytes"),
        (KeeperSide("local", TOKEN, KEEPER, PRINT).begin() + b"x", "talks on"),
    ],
)
def test_garbage_is_refused_before_it_is_kept(data: bytes, why: str) -> None:
    _, engine = sides()
    with pytest.raises(NotProven, match=why):
        engine.feed(data)


@given(st.binary(max_size=600))
def test_anything_at_all_is_refused_or_waited_for(data: bytes) -> None:
    for side in sides():
        try:
            side.feed(data)
        except NotProven:
            pass
        assert not side.proven


def test_proofs_of_other_lengths_are_refused() -> None:
    for size in (0, 31, 33, 200):
        keeper, engine = sides()
        right = body(keeper.feed(engine.feed(keeper.begin())), Proof)
        cut = replace(right, mac=(right.mac * 8)[:size])
        with pytest.raises(NotProven):
            engine.feed(wire.frame(msgspec.msgpack.encode(cut)))


def test_a_token_is_64_digits_and_never_in_a_message() -> None:
    assert proof.token(TOKEN.hex() + "\n") == TOKEN
    for text in ("", "12", TOKEN.hex()[:-1], TOKEN.hex().upper(), TOKEN.hex() + "0", "g" * 64, "٣" * 64):
        with pytest.raises(ValueError, match="no token") as refused:
            proof.token(text)
        assert not text or text not in str(refused.value).partition(" ")[2]
    with pytest.raises(ValueError, match="proves nothing"):
        KeeperSide("local", b"short", KEEPER, "")
    with pytest.raises(ValueError, match="proves nothing"):
        KeeperSide("a b", TOKEN, KEEPER, "")


def test_the_proof_is_pure() -> None:
    tree = ast.parse(Path(proof.__file__).read_text())
    names = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    assert set(names) <= {"hmac", "re", "msgspec"}
