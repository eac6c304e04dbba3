"""What every client does, whatever carries it: list, call, read, get a prompt, see progress, cancel,
and be refused. Each step prints one line that begins with `ok` or `FAIL`; the lists are printed for
comparison with what other clients saw.

A client is an object with the coroutines of `Client` below.
"""

import json
import os
import ssl
import sys
import time
import traceback

import anyio

HOST = os.environ["INTEROP_HOST"]
PORT = os.environ["INTEROP_PORT"]
PKI = os.environ["INTEROP_PKI"]
WHO = os.environ["INTEROP_WHO"]
PATIENCE = 60


class Client:
    """The steps that a client offers to the plan."""

    async def list(self, what):
        """Every element of `tools`, `resources`, `templates` or `prompts`: name, URI or template."""

    async def call(self, tool, arguments, progress=None):
        """The result's text, and whether it is an error. `progress` is called with numbers."""

    async def read(self, uri):
        """The text of a resource."""

    async def prompt(self, name, arguments):
        """The text of the first message."""

    async def cancel(self, tool, arguments):
        """Starts a call and cancels it once it has shown progress."""


def context():
    """TLS with the certificate of the identity that this client is."""
    made = ssl.create_default_context(cafile=f"{PKI}/ca.pem")
    made.load_cert_chain(f"{PKI}/{WHO}.crt", f"{PKI}/{WHO}.key")
    return made


def cancelled():
    """How many calls the server's audit log says were cancelled."""
    with open(f"{PKI}/audit.jsonl", encoding="utf-8") as log:
        return sum('"outcome":"cancelled"' in line for line in log)


def decided(tool):
    """How many calls of this tool the server's audit log has decided on."""
    with open(f"{PKI}/audit.jsonl", encoding="utf-8") as log:
        return sum('"event":"decision"' in line and f'"{tool}"' in line for line in log)


def uri_of(uris, name):
    return next(uri for uri in uris if uri.endswith("/" + name))


async def run(client):
    """Goes through the plan; true if every step passed."""
    passed = True
    lists = {}

    async def lists_all():
        for what in ("tools", "resources", "templates", "prompts"):
            lists[what] = await client.list(what)
        assert "files__read_file" in lists["tools"], lists
        assert "files__write_file" not in lists["tools"], lists
        print("list", json.dumps(lists, sort_keys=True, separators=(",", ":")))

    async def calls():
        text, failed = await client.call("files__read_file", {"path": "notes.txt"})
        assert "milk" in text and not failed, text
        text, failed = await client.call("files__read_file", {"path": "no-such-file"})
        assert failed, text

    async def reads():
        text = await client.read(uri_of(lists["resources"], "notes.txt"))
        assert "milk" in text, text

    async def gets_a_prompt():
        text = await client.prompt("prompts__summarize", {"path": "notes.txt"})
        assert "notes.txt" in text, text

    async def sees_progress():
        seen = []
        text, failed = await client.call(
            "files__search_files", {"path": "many", "content": "needle"}, seen.append
        )
        assert not failed, text
        assert seen and seen == sorted(seen), seen

    async def cancels():
        before = cancelled()
        await client.cancel("files__search_files", {"path": "large", "content": "needle"})
        until = time.monotonic() + PATIENCE
        while cancelled() == before:
            assert time.monotonic() < until, "the server never heard of it"
            await anyio.sleep(0.05)
        # The client goes on.
        await client.call("self__whoami", {})

    async def is_refused():
        for ask, *what in (
            (client.call, "files__write_file", {"path": "x", "content": "y"}),
            (client.call, "files__no_such_tool", {}),
            (client.prompt, "prompts__none", {}),
        ):
            try:
                answer = await ask(*what)
            except Exception as error:  # Each client has an error of its own.
                words = ("not granted", "nknown", "not found")
                assert any(word in str(error) for word in words), repr(error)
            else:
                raise AssertionError(f"answered with {answer}")

    for step in (lists_all, calls, reads, gets_a_prompt, sees_progress, cancels, is_refused):
        try:
            with anyio.fail_after(PATIENCE):
                await step()
            print("ok", step.__name__)
        except Exception as error:
            passed = False
            print("FAIL", step.__name__, repr(error))
            traceback.print_exc(file=sys.stderr)
    return passed
