"""No SDK and no HTTP library: curl with `--cert`, revision 2026-07-28 by hand."""

import asyncio
import itertools
import json
import sys

import plan

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "1"},
}
CURL = ["curl", "--silent", "--show-error", "--no-buffer", "--fail-with-body"]
TLS = ["--cert", f"{plan.PKI}/{plan.WHO}.crt", "--key", f"{plan.PKI}/{plan.WHO}.key"]
TLS += ["--cacert", f"{plan.PKI}/ca.pem"]


class Client(plan.Client):
    def __init__(self, version):
        self.version = version
        self.ids = itertools.count(1)

    async def ask(self, method, params, progress=None, cancel=False):
        number = next(self.ids)
        meta = {**META, "progressToken": number} if progress or cancel else META
        message = {"jsonrpc": "2.0", "id": number, "method": method}
        message["params"] = {**params, "_meta": meta}
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
        }
        name = params.get("name") or params.get("uri")
        if name:
            headers["Mcp-Name"] = name
        fields = [part for key, value in headers.items() for part in ("-H", f"{key}: {value}")]
        curl = await asyncio.create_subprocess_exec(
            *CURL, *TLS, self.version, *fields, "--data-binary", json.dumps(message),
            f"https://{plan.HOST}:{plan.PORT}/mcp",
            stdout=asyncio.subprocess.PIPE, limit=1 << 24,
        )
        try:
            async for line in curl.stdout:
                text = line.decode().strip().removeprefix("data: ")
                if not text.startswith("{"):
                    continue
                message = json.loads(text)
                if message.get("method") == "notifications/progress":
                    if cancel:
                        # Going away is how a request of this revision is cancelled.
                        curl.kill()
                        return None
                    progress(message["params"]["progress"])
                elif "error" in message:
                    raise RuntimeError(message["error"]["message"])
                else:
                    assert message["id"] == number, message
                    return message["result"]
            raise RuntimeError("no answer")
        finally:
            await curl.wait()

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


if __name__ == "__main__":
    sys.exit(not asyncio.run(plan.run(Client(sys.argv[1]))))
