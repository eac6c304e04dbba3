"""The Python SDK `mcp` 1.30, the last with a WebSocket client: that client class over a TLS context,
and Streamable HTTP with a client certificate. It knows the legacy era only."""

import functools
import sys
import warnings

import anyio
import httpx
import mcp.client.websocket
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client

import plan

warnings.simplefilter("ignore")


class Client(plan.Client):
    def __init__(self, session):
        self.session = session

    async def list(self, what):
        method, member, key = {
            "tools": (self.session.list_tools, "tools", "name"),
            "resources": (self.session.list_resources, "resources", "uri"),
            "templates": (self.session.list_resource_templates, "resourceTemplates", "uriTemplate"),
            "prompts": (self.session.list_prompts, "prompts", "name"),
        }[what]
        found, cursor = [], None
        while True:
            page = await method(params=types.PaginatedRequestParams(cursor=cursor))
            found += [str(getattr(element, key)) for element in getattr(page, member)]
            cursor = page.nextCursor
            if cursor is None:
                return found

    async def call(self, tool, arguments, progress=None):
        async def on_progress(now, total, message):
            progress(now)

        callback = on_progress if progress else None
        result = await self.session.call_tool(tool, arguments, progress_callback=callback)
        return result.content[0].text, result.isError

    async def read(self, uri):
        return (await self.session.read_resource(uri)).contents[0].text

    async def prompt(self, name, arguments):
        return (await self.session.get_prompt(name, arguments)).messages[0].content.text

    async def cancel(self, tool, arguments):
        # This SDK does not tell the server by itself that nobody waits any more.
        request = self.session._request_id
        async with anyio.create_task_group() as group:

            async def on_progress(now, total, message):
                params = types.CancelledNotificationParams(requestId=request)
                told = types.CancelledNotification(params=params)
                await self.session.send_notification(types.ClientNotification(told))
                group.cancel_scope.cancel()

            await self.session.call_tool(tool, arguments, progress_callback=on_progress)
            raise AssertionError("it was over before it was cancelled")


async def main(way):
    if way == "ws":
        # The class takes an address only: the certificate comes in by the library's own function.
        connect = functools.partial(mcp.client.websocket.ws_connect, ssl=plan.context())
        mcp.client.websocket.ws_connect = connect
        url = f"wss://{plan.HOST}:{plan.PORT}/mcp"
        async with mcp.client.websocket.websocket_client(url) as (read, write):
            return await over(read, write)
    async with httpx.AsyncClient(verify=plan.context(), timeout=plan.PATIENCE) as http:
        url = f"https://{plan.HOST}:{plan.PORT}/mcp"
        async with streamable_http_client(url, http_client=http) as (read, write, _):
            return await over(read, write)


async def over(read, write):
    async with ClientSession(read, write) as session:
        await session.initialize()
        return await plan.run(Client(session))


if __name__ == "__main__":
    sys.exit(not anyio.run(main, *sys.argv[1:]))
