"""Names as they are compared: one spelling each, nothing unseen, nothing that looks like another script's."""

from __future__ import annotations

import pytest

from gateway.issuer.names import canonical_email, canonical_login, canonical_username


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Alice", "alice"),
        (" alice\u00a0", "alice"),
        ("\uff21lice", "alice"),  # full width
        ("Stra\u00dfe", "strasse"),
        ("\u212bngstr\u00f6m", "\u00e5ngstr\u00f6m"),  # the sign is the letter
        ("a\u0308", "\u00e4"),
        ("\ufb01nn", "finn"),  # a ligature
        ("\u1f88", "\u1f00\u03b9"),
        ("\u0438\u0432\u0430\u043d", "\u0438\u0432\u0430\u043d"),  # Cyrillic alone is fine
        ("\u592a\u90ce-taro", "\u592a\u90ce-taro"),  # letters that nobody mistakes for one another
        ("x" * 64, "x" * 64),
    ],
)
def test_one_spelling_for_each_name(typed: str, name: str) -> None:
    """However it was typed; comparing again changes nothing."""
    assert canonical_username(typed) == name
    assert canonical_username(name) == name


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "a b",
        "a@b",
        "a\uff20b",  # a full-width @
        "x" * 65,
        "\ufdfa" * 4,  # short as typed
        "a\u200bb",  # zero width
        "a\u00adb",  # soft hyphen
        "alice\ufe0f",  # variation selector
        "alice\U000e0100",
        "alice\u034f",
        "a\u3164b",  # a letter that is drawn as nothing
        "\u115fa",
        "a\u2800b",  # a Braille pattern without dots
        "a\u202eb",  # turns the text round
        "a\u2066b",
        "a\ue000b",  # private use
        "a\u0378b",  # not assigned
        "\ud800",
        "a\x00b",
        "a\x85b",
        "\u0430dmin",  # Cyrillic a
        "\u0391lice",  # Greek A
        "scop\u0435",
    ],
)
def test_what_could_be_taken_for_another_name_is_no_name(typed: str) -> None:
    """Unseen characters and mixed scripts."""
    with pytest.raises(ValueError, match="a user name"):
        canonical_username(typed)


def test_every_character_has_one_spelling() -> None:
    """Of all that Unicode has below its supplementary ideographs: a name once compared stays as it is."""
    for code in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x12000), *range(0x1D400, 0x1F000)):
        try:
            name = canonical_username(f"x{chr(code)}y")
        except ValueError:
            continue
        assert canonical_username(name) == name, hex(code)


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("Alice@Example.ORG", "alice@example.org"),
        (" a.b+c@example.org ", "a.b+c@example.org"),
        ("o'neil@example.org", "o'neil@example.org"),
        ("\u00fcber@ex\u00e4mple.org", "\u00fcber@ex\u00e4mple.org"),  # RFC 6531
        ("root@localhost", "root@localhost"),
        ("a@\uff45xample.org", "a@example.org"),
    ],
)
def test_an_address_has_one_spelling(typed: str, address: str) -> None:
    """Nobody can have a second account by writing it otherwise."""
    assert canonical_email(typed) == address
    assert canonical_login(typed if "@" in typed else "x@y") == ("email", address)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "alice",
        "@example.org",
        "alice@",
        "a@b@c",
        "a b@example.org",
        "a@example.org\r\nbcc: evil@example.org",
        "a@example.org,evil@example.org",
        "a,b@example.org",
        "<a@example.org>",
        "a@example.org>",
        "a(x)@example.org",
        '"a b"@example.org',
        "a@[192.0.2.1]",
        "a@example..org",
        ".a@example.org",
        "a.@example.org",
        "a@-example.org",
        "a@example.org.",
        "a\u200b@example.org",
        "a\u202e@example.org",
        "a@exa\u00admple.org",
        "x" * 65 + "@example.org",
        "a@" + "x" * 253,
    ],
)
def test_what_a_mail_program_could_read_otherwise_is_no_address(typed: str) -> None:
    """One mailbox, on one line, seen as it is."""
    with pytest.raises(ValueError, match="not an e-mail address"):
        canonical_email(typed)
