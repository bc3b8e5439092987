"""What pages take from the code: the roles ``value`` and ``extra``."""

from __future__ import annotations

import re

import pytest
from docutils.core import publish_doctree
from docutils.parsers.rst import roles

from docs import values
from docs.values import with_values
from tests.docs import sentences
from tests.docs.howto_support import plain
from tests.docs.sentences import PAGES

LIMITS = "easynetwork.servers.Limits"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"{LIMITS}.send_timeout", "60"),
        (f"{LIMITS}.public().idle_timeout as code", "``600``"),
        (f"{LIMITS}.max_clients as code", '``"auto"``'),
        (f"{LIMITS}.max_clients_per_host as code", "``None``"),
        (f"{LIMITS}.keepalive * 3", "180"),
        (f"three minutes <{LIMITS}.keepalive * 3>", "three minutes"),
        ("easynetwork.servers.limits._MOST_CLIENTS", "10,000"),
        ("easynetwork.servers.limits._SHARE in %", "80 %"),
        ("easynetwork._tuning.HIGH_WATER in KiB", "64 KiB"),
        ("easynetwork._tuning.STOP_TIMEOUT in words", "one"),
        ("a second <easynetwork._tuning.STOP_TIMEOUT>", "a second"),
        (f"half a minute <{LIMITS}.send_timeout / 2>", "half a minute"),
        ("easynetwork.serializers.JSONSerializer(limit)", "65,536"),
        ("easynetwork.sockets.connecting.connect_tcp(happy_eyeballs_delay)", "0.25"),
    ],
)
def test_values(text: str, shown: str) -> None:
    """A number is shown as prose has it; a text of its own has to say the same number."""
    assert with_values(f"It is :value:`{text}`.") == f"It is {shown}."
    assert plain(f"It is :value:`{text}`.") == f"It is {shown.strip('`')}."
    assert sentences.words_of(f":value:`{text}`") == sentences.words_of(shown)


@pytest.mark.parametrize(
    ("role", "complaint"),
    [
        (f":value:`{LIMITS}.send_time`", f"there is no {LIMITS}.send_time"),
        (":value:`easynetwork.limits.Limits`", "there is no easynetwork.limits.Limits"),
        (":value:`easynetworks.Limits`", "there is no module easynetworks"),
        (":value:`easynetwork.servers.run(gracious)`", "servers.run has no parameter gracious"),
        (f":value:`{LIMITS}.idle_timeout`", "None is no number"),
        (f":value:`{LIMITS}.send_timeout in miles`", "what is 'miles'?"),
        (f":value:`{LIMITS}.send_timeout in words`", "there is no word for 60"),
        (f":value:`two minutes <{LIMITS}.send_timeout>`", "'two minutes' is wrong, it is 60"),
        (f":value:`a while <{LIMITS}.send_timeout>`", "'a while' is wrong"),
        (f":value:`long <{LIMITS}.send_timeout>`", "'long' says no number"),
        (":extra:`msgpak`", "msgpak: there are trio, uvloop, cbor, msgpack"),
        (':extra:`pip install ".[trio,uvlop]"`', "uvlop: there are"),
        (':extra:`pip install "msgpack>=1"`', "msgpack>=1: there are"),
    ],
)
def test_wrong_values(role: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone, or says something else, is an error that names the text of the page."""
    with pytest.raises(ValueError, match=re.escape(f"{role}: ") + ".*" + re.escape(complaint)):
        with_values(f"It is {role}.")
    with monkeypatch.context() as patch:
        patch.setattr(roles, "_roles", {**roles._roles, **dict.fromkeys(values.ROLES, values.show)})
        page = publish_doctree(f"It is {role}.", settings_overrides={"report_level": 5})
    (message,) = {node.astext() for node in page.findall() if node.tagname == "system_message"}
    assert f"{role}: " in message
    assert complaint in message


def test_on_pages() -> None:
    """All pages have these roles right, and each extra that they install exists."""
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += text.count(":value:`")
        for names in re.findall(r"\.\[([\w,]+)\]", with_values(text)):
            assert set(names.split(",")) <= {*values.extras()}, page
    assert found > 100


def test_sphinx() -> None:
    """On a page, the text of a role is text, and code is code."""
    text = f":value:`{LIMITS}.send_timeout` :value:`{LIMITS}.max_clients as code`"
    shown, code = values.show("value", text, f"{LIMITS}.send_timeout", 1, None)
    assert (shown[0].astext(), code) == ("60", [])
    shown, _ = values.show("value", text, f"{LIMITS}.max_clients as code", 1, None)
    assert (shown[0].tagname, shown[0].astext()) == ("literal", '"auto"')
