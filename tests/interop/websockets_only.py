"""No SDK: the `websockets` library and revision 2026-07-28 by hand. That library offers compression
and pings, and checks the server's frames."""

import asyncio
import itertools
import json
import sys

import websockets

import plan

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "interop", "version": "1"},
}


class Client(plan.Client):
    def __init__(self, socket):
        self.socket = socket
        self.ids = itertools.count(1)

    async def ask(self, method, params, progress=None, cancel=False):
        number = next(self.ids)
        meta = {**META, "progressToken": number} if progress or cancel else META
        params = {**params, "_meta": meta}
        await self.say({"id": number, "method": method, "params": params})
        while True:
            message = json.loads(await self.socket.recv())
            if message.get("method") == "notifications/progress":
                if cancel:
                    await self.say({"method": "notifications/cancelled", "params": {"requestId": number}})
                    return None
                if progress:
                    progress(message["params"]["progress"])
            elif message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                return message["result"]

    async def say(self, message):
        await self.socket.send(json.dumps({"jsonrpc": "2.0", **message}))

    async def list(self, what):
        method, member, key = {
            "tools": ("tools/list", "tools", "name"),
            "resources": ("resources/list", "resources", "uri"),
            "templates": ("resources/templates/list", "resourceTemplates", "uriTemplate"),
            "prompts": ("prompts/list", "prompts", "name"),
        }[what]
        found, params = [], {}
        while True:
            page = await self.ask(method, params)
            found += [element[key] for element in page[member]]
            if "nextCursor" not in page:
                return found
            params = {"cursor": page["nextCursor"]}

    async def call(self, tool, arguments, progress=None):
        result = await self.ask("tools/call", {"name": tool, "arguments": arguments}, progress)
        return result["content"][0]["text"], result.get("isError", False)

    async def read(self, uri):
        return (await self.ask("resources/read", {"uri": uri}))["contents"][0]["text"]

    async def prompt(self, name, arguments):
        result = await self.ask("prompts/get", {"name": name, "arguments": arguments})
        return result["messages"][0]["content"]["text"]

    async def cancel(self, tool, arguments):
        await self.ask("tools/call", {"name": tool, "arguments": arguments}, cancel=True)


async def main():
    url = f"wss://{plan.HOST}:{plan.PORT}/mcp"
    async with websockets.connect(
        url, ssl=plan.context(), subprotocols=["mcp"], ping_interval=0.2
    ) as socket:
        assert socket.subprotocol == "mcp"
        assert not socket.protocol.extensions, "no extension is agreed on"
        return await plan.run(Client(socket))


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
