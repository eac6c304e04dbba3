"""The Python SDK `mcp` 2: Streamable HTTP with a client certificate, the loopback endpoint, and
stdio through `countersign connect`; in its own modern mode and in the legacy one."""

import os
import sys

import anyio
import httpx2
from mcp.client.client import Client as Sdk
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

import plan


class Client(plan.Client):
    def __init__(self, sdk, era):
        self.sdk = sdk
        assert (sdk.protocol_version == "2026-07-28") == (era == "modern"), sdk.protocol_version

    async def list(self, what):
        method, member, key = {
            "tools": (self.sdk.list_tools, "tools", "name"),
            "resources": (self.sdk.list_resources, "resources", "uri"),
            "templates": (self.sdk.list_resource_templates, "resource_templates", "uri_template"),
            "prompts": (self.sdk.list_prompts, "prompts", "name"),
        }[what]
        found, cursor = [], None
        while True:
            page = await method(cursor=cursor)
            found += [str(getattr(element, key)) for element in getattr(page, member)]
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def call(self, tool, arguments, progress=None):
        async def on_progress(now, total, message):
            progress(now)

        callback = on_progress if progress else None
        result = await self.sdk.call_tool(tool, arguments, progress_callback=callback)
        return result.content[0].text, bool(result.is_error)

    async def read(self, uri):
        return (await self.sdk.read_resource(uri)).contents[0].text

    async def prompt(self, name, arguments):
        return (await self.sdk.get_prompt(name, arguments)).messages[0].content.text

    async def cancel(self, tool, arguments):
        async with anyio.create_task_group() as group:

            async def on_progress(now, total, message):
                group.cancel_scope.cancel()

            await self.sdk.call_tool(tool, arguments, progress_callback=on_progress)
            raise AssertionError("it was over before it was cancelled")


async def main(way, era):
    mode = {"modern": "auto", "legacy": "legacy"}[era]
    if way == "http":
        async with httpx2.AsyncClient(verify=plan.context(), timeout=plan.PATIENCE) as http:
            url = f"https://{plan.HOST}:{plan.PORT}/mcp"
            async with Sdk(streamable_http_client(url, http_client=http), mode=mode) as sdk:
                return await plan.run(Client(sdk, era))
    if way == "loopback":
        headers = {"Authorization": f"Bearer {os.environ['INTEROP_TOKEN']}"}
        async with httpx2.AsyncClient(headers=headers, timeout=plan.PATIENCE) as http:
            url = os.environ["INTEROP_URL"]
            async with Sdk(streamable_http_client(url, http_client=http), mode=mode) as sdk:
                return await plan.run(Client(sdk, era))
    server = StdioServerParameters(
        command=os.environ["INTEROP_PROGRAM"],
        args=["connect", "--transport", way.removeprefix("connect-")]
        + ["--server", f"{plan.HOST}:{plan.PORT}"]
        + ["--pki", plan.PKI, "--as", plan.WHO],
    )
    async with Sdk(server, mode=mode) as sdk:
        return await plan.run(Client(sdk, era))


if __name__ == "__main__":
    sys.exit(not anyio.run(main, *sys.argv[1:]))
