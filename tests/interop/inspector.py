"""The command line of the MCP Inspector, which starts `countersign connect` by the configuration that
`connect --print-config` prints. It makes one request a run, and cancels as a command line does, by being
interrupted. It asks for progress (`--tool-metadata progressToken=…`), takes it, and has no way to show it:
in 2.12.0 its client is made with `progress: false`, and nothing listens to what comes. So what it is given is
looked at on its way in, and what it makes of it is the result that it still shows."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile

import plan


# Runs the rest of its arguments with a copy of what they print in the file that the first one names.
COPY = 'copy="$1"; shift; "$@" | tee "$copy"'


class Client(plan.Client):
    def __init__(self, config, watched, copy):
        self.config, self.watched, self.copy = config, watched, copy

    async def start(self, method, *more, config=None):
        return await asyncio.create_subprocess_exec(
            os.environ["INTEROP_NODE"], os.environ["INTEROP_INSPECTOR"], "--cli",
            "--config", config or self.config, "--server", "countersign", "--method", method, *more,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    async def ask(self, method, *more, config=None):
        inspector = await self.start(method, *more, config=config)
        said, complaint = await inspector.communicate()
        try:
            answer = json.loads(said)
        except ValueError:
            raise RuntimeError((complaint + said).decode()) from None
        return answer

    async def list(self, what):
        method, member, key = {
            "tools": ("tools/list", "tools", "name"),
            "resources": ("resources/list", "resources", "uri"),
            "templates": ("resources/templates/list", "resourceTemplates", "uriTemplate"),
            "prompts": ("prompts/list", "prompts", "name"),
        }[what]
        return [element[key] for element in (await self.ask(method))[member]]

    async def call(self, tool, arguments, progress=None):
        pairs = [part for pair in arguments.items() for part in ("--tool-arg", "=".join(pair))]
        more, config = [], None
        if progress is not None:
            more, config = ["--tool-metadata", "progressToken=seen"], self.watched
        result = await self.ask("tools/call", "--tool-name", tool, *pairs, *more, config=config)
        if progress is not None:
            with open(self.copy, encoding="utf-8") as copy:
                messages = [json.loads(line) for line in copy]
            for message in messages:
                if message.get("method") == "notifications/progress":
                    assert message["params"]["progressToken"] == "seen", message
                    progress(message["params"]["progress"])
        return result["content"][0]["text"], result.get("isError", False)

    async def cancel(self, tool, arguments):
        pairs = [part for pair in arguments.items() for part in ("--tool-arg", "=".join(pair))]
        before = plan.decided(tool)
        inspector = await self.start("tools/call", "--tool-name", tool, *pairs)
        while plan.decided(tool) == before:
            await asyncio.sleep(0.05)
        inspector.send_signal(signal.SIGINT)
        await inspector.communicate()

    async def read(self, uri):
        return (await self.ask("resources/read", "--uri", uri))["contents"][0]["text"]

    async def prompt(self, name, arguments):
        pairs = [part for pair in arguments.items() for part in ("--prompt-args", "=".join(pair))]
        result = await self.ask("prompts/get", "--prompt-name", name, *pairs)
        return result["messages"][0]["content"]["text"]


def main():
    printed = subprocess.run(
        [os.environ["INTEROP_PROGRAM"], "connect", "--print-config", "claude"]
        + ["--server", f"{plan.HOST}:{plan.PORT}", "--pki", plan.PKI, "--as", plan.WHO],
        check=True, capture_output=True, text=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        config, watched, copy = (f"{folder}/{name}" for name in ("own.json", "watched.json", "copy"))
        with open(config, "w", encoding="utf-8") as file:
            file.write(printed.stdout)
        servers = json.loads(printed.stdout)
        server = servers["mcpServers"]["countersign"]
        server["args"] = ["-c", COPY, "sh", copy, server["command"], *server["args"]]
        server["command"] = "sh"
        with open(watched, "w", encoding="utf-8") as file:
            json.dump(servers, file)
        return asyncio.run(plan.run(Client(config, watched, copy)))


if __name__ == "__main__":
    sys.exit(not main())
