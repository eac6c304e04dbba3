"""The command line of the MCP Inspector, which starts `countersign connect` by the configuration that
`connect --print-config` prints. It makes one request a run and has no option that shows progress; it
cancels as a command line does, by being interrupted."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile

import plan


class Client(plan.Client):
    def __init__(self, config):
        self.config = config

    async def start(self, method, *more):
        return await asyncio.create_subprocess_exec(
            os.environ["INTEROP_NODE"], os.environ["INTEROP_INSPECTOR"], "--cli",
            "--config", self.config, "--server", "countersign", "--method", method, *more,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    async def ask(self, method, *more):
        inspector = await self.start(method, *more)
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
        result = await self.ask("tools/call", "--tool-name", tool, *pairs)
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
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
        config.write(printed.stdout)
        config.flush()
        return asyncio.run(plan.run(Client(config.name), ("sees_progress",)))


if __name__ == "__main__":
    sys.exit(not main())
