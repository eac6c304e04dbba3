// `@modelcontextprotocol/sdk` 1.32: Streamable HTTP and its WebSocket client, both through undici
// with a client certificate, and stdio through `countersign connect`. It knows the legacy era only.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import { fetch, WebSocket } from 'undici';

import { address, bridge, dispatcher, pages, run } from './plan.mjs';

const ways = {
  http() {
    const agent = dispatcher();
    const options = { fetch: (url, init) => fetch(url, { ...init, dispatcher: agent }) };
    return new StreamableHTTPClientTransport(new URL(`https://${address}/mcp`), options);
  },
  ws() {
    // The class takes an address only: the certificate comes in by the global that it uses.
    const agent = dispatcher();
    globalThis.WebSocket = class extends WebSocket {
      constructor(url, protocols) {
        super(url, { protocols, dispatcher: agent });
      }
    };
    return new WebSocketClientTransport(new URL(`wss://${address}/mcp`));
  },
  stdio: () => new StdioClientTransport(bridge('raw')),
};

const sdk = new Client({ name: 'interop', version: '1' });
await sdk.connect(ways[process.argv[2]]());
const passed = await run({
  list: what =>
    ({
      tools: () => pages(p => sdk.listTools(p), 'tools', 'name'),
      resources: () => pages(p => sdk.listResources(p), 'resources', 'uri'),
      templates: () => pages(p => sdk.listResourceTemplates(p), 'resourceTemplates', 'uriTemplate'),
      prompts: () => pages(p => sdk.listPrompts(p), 'prompts', 'name'),
    })[what](),
  call: (name, args, options) => sdk.callTool({ name, arguments: args }, undefined, options),
  read: uri => sdk.readResource({ uri }),
  prompt: (name, args) => sdk.getPrompt({ name, arguments: args }),
});
await sdk.close();
process.exit(passed ? 0 : 1);
