"""A secret's value is hidden in whatever form it is printed, and nothing else is."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.run.masking import Mask

SECRET = "s3cr3t/w0rd+with=si gns&'\"\\é"


def xtrace(text: str) -> str:
    """Give a text as bash prints it in a trace."""
    done = subprocess.run(["bash", "-xc", ': "$1"', "-", text], capture_output=True, text=True)
    return done.stderr


def wrapped(text: str, width: int, end: str) -> str:
    return end.join(text[at : at + width] for at in range(0, len(text), width))


def in_base64(text: str, before: int = 0, url: bool = False) -> str:
    data = b"\xff" * before + text.encode() + b"\xfe>"
    return (base64.urlsafe_b64encode if url else base64.b64encode)(data).decode()


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    **{f"base64 at {n}": lambda text, n=n: in_base64(text, n) for n in range(4)},
    **{f"base64 for URLs at {n}": lambda text, n=n: in_base64(text, n, True) for n in range(3)},
    "base64 of base64's lines": lambda text: wrapped(in_base64(text, 40), 17, "\n"),
    "base64 in a URL": lambda text: quote(in_base64(text, 1), safe=""),
    "basic login": lambda text: base64.b64encode(f"me:{text}".encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex in upper case": lambda text: text.encode().hex().upper(),
    "hex with blanks": lambda text: text.encode().hex(" "),
    "hex with colons": lambda text: text.encode().hex(":"),
    "hex in lines": lambda text: wrapped(text.encode().hex(), 16, "\n"),
    "hex of od": lambda text: wrapped(text.encode().hex(" "), 24, "\n "),
    "bytes in C": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "bytes in Python": lambda text: repr(text.encode()),
    "percent": lambda text: quote(text, safe=""),
    "percent but for slashes": quote,
    "percent in lower case": lambda text: quote(text, safe="").replace("%2F", "%2f").lower(),
    "percent as JavaScript has it": lambda text: quote(text, safe="!'()*~"),
    "percent of all": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "a form's": quote_plus,
    "a form's but for slashes": lambda text: quote_plus(text, safe="/"),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON for HTML": lambda text: json.dumps(text).replace("&", "\\u0026"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "repr": repr,
    "HTML": lambda text: text.replace("&", "&amp;").replace('"', "&quot;"),
    "shell": shlex.quote,
    "a trace": xtrace,
    "backslashes": lambda text: "".join(c if c.isalnum() else "\\" + c for c in text),
    "cut by \\r": lambda text: wrapped(text, 5, "\r"),
    "cut by a line end": lambda text: wrapped(text, 6, "\n"),
    "cut by Windows' line end": lambda text: wrapped(text, 6, "\r\n"),
    "cut by colours": lambda text: wrapped(text, 1, "\x1b[01;31m\x1b[K"),
    "cut by a title": lambda text: wrapped(text, 4, "\x1b]0;title\x07"),
    "cut by NUL": lambda text: wrapped(text, 2, "\0"),
}  # fmt: skip
# Those that a secret which holds upper case does not survive.
LOSSY = {"percent in lower case"}


SECRETS = (SECRET, "hunter2", "AKIA0123456789ABCDEF", "a b c d e f g h")


def survives(form: str, secret: str) -> bool:
    """Tell whether a form leaves of a secret what can be known."""
    torn = "cut by" in form and "colours" not in form
    return not (torn and len(secret) < 8) and (form not in LOSSY or secret.islower())


@pytest.mark.parametrize(
    ("form", "secret"), [(f, s) for f in FORMS for s in SECRETS if survives(f, s)]
)
def test_a_secret_is_hidden_in_every_form(form: str, secret: str) -> None:
    written = FORMS[form](secret)
    hidden = Mask([secret])(f"before {written} after")
    assert hidden.startswith("before ") and hidden.endswith(" after")
    assert "***" in hidden
    rest = hidden.replace("***", "").removeprefix("before").removesuffix("after")
    kept = max(rest.split() or [""], key=len)
    assert len(kept) <= len(written) - len(secret) + 3 and secret not in kept, hidden


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_however_the_text_is_cut_the_result_is_the_same(data: st.DataObject) -> None:
    alphabet = st.sampled_from("ab/+%é'\" \\7=")
    secret = data.draw(st.text(alphabet, min_size=4, max_size=12))
    noise = st.text(st.sampled_from("ab/+%é'\" \\7=\n\r[m25uf&;"), max_size=6)
    forms = data.draw(
        st.lists(st.sampled_from(sorted(FORMS)).filter(lambda f: f != "a trace"), max_size=3)
    )
    text = data.draw(noise) + "".join(FORMS[form](secret) + data.draw(noise) for form in forms)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    mask, pieces = Mask([secret, "other-secret"]), []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces.append(mask.feed(text[begin:end]))
    pieces.append(mask.feed("", last=True))
    assert "".join(pieces) == Mask([secret, "other-secret"])(text)


PEM = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2] * 3)
ACCOUNT = {
    "type": "service_account",
    "project_id": "my-project",
    "private_key": f"{PEM}\n-----END PRIVATE KEY-----\n",
    "password": "hunter2",
    "auth_uri": "https://accounts.example.com/o/oauth2/auth",
}
HARMLESS = "{ } [ ] failed stopped its exit status is 3 my-project https://accounts.example.com/o/"


@pytest.mark.parametrize("indent", [None, 2])
def test_of_a_key_file_the_key_is_hidden_and_not_the_brackets(indent: int | None) -> None:
    mask = Mask([json.dumps(ACCOUNT, indent=indent)])
    assert mask(HARMLESS) == HARMLESS
    for shown in (PEM, json.dumps(ACCOUNT), json.dumps(ACCOUNT, indent=1), "is hunter2 end"):
        hidden = mask(shown)
        assert "MIIEvQIB" not in hidden and "hunter2" not in hidden, hidden
    assert "MIIEvQIB" not in Mask([PEM.replace("\n", "\\n")])(PEM)


@pytest.mark.parametrize("secret", ["a", "{", "e", "is", "3", " ", "\n", "{\n}\n", "on"])
def test_what_identifies_nothing_hides_nothing(secret: str) -> None:
    assert Mask([secret])(HARMLESS) == HARMLESS


@pytest.mark.parametrize("secret", ["failed", "status", "stopped"])
def test_words_of_the_runner_are_not_hidden_for_being_a_secret(secret: str) -> None:
    assert Mask([secret, "t0ken-of-mine"]).words(f"{HARMLESS} t0ken-of-mine") == f"{HARMLESS} ***"
    assert "***" in Mask([secret])(f"the password is {secret}")


@pytest.mark.parametrize(
    ("value", "password"),
    [
        ("https://me:p4ssw0rd@pypi.example.com/simple", "p4ssw0rd"),
        ("https://me:p4ss%2Fw0rd@pypi.example.com/simple", "p4ss/w0rd"),
        ("http://user:p4ssw0rd@[::1]:3128", "p4ssw0rd"),
        ("user:p4ssw0rd@proxy.example.com:3128", "p4ssw0rd"),
        ("https://glpat-0123456789abcdefgh@host/x https://b:second-one@host", "second-one"),
        ("https://glpat-0123456789abcdefgh@host/x", "glpat-0123456789abcdefgh"),
        ("postgres://me:p@ss:w0rd@db/x", "p@ss:w0rd"),
    ],
)
def test_of_an_address_the_login_is_hidden(value: str, password: str) -> None:
    hidden = Mask([value])(f"trying {password} and {quote(password, safe='')}")
    assert hidden == "trying *** and ***"


def test_masking_takes_no_longer_than_a_tenth_of_a_second_per_megabyte() -> None:
    line = "epoch 12 | loss 0.3817 | 'accuracy' 0.9806 | a/b c:d 100% 3.2 it/s █████\n"
    text = (line * 60_000)[: 4 << 20]
    mask = Mask([json.dumps(ACCOUNT), "hf_abcdefghijklmnopqrstuvwxyz"])
    began = time.process_time()
    shown = "".join(mask.feed(text[at : at + 65536]) for at in range(0, len(text), 65536))
    assert shown + mask.feed("", last=True) == text
    assert time.process_time() - began < 0.4 * 4
