// `@modelcontextprotocol/client` 2.4 in both eras: Streamable HTTP through undici with a client
// certificate, the loopback endpoint, and stdio through `countersign connect`.

import assert from 'node:assert/strict';

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { fetch } from 'undici';

import { address, bridge, dispatcher, pages, run } from './plan.mjs';

const [, , way, era] = process.argv;
const ways = {
  http() {
    const agent = dispatcher();
    const options = { fetch: (url, init) => fetch(url, { ...init, dispatcher: agent }) };
    return new StreamableHTTPClientTransport(new URL(`https://${address}/mcp`), options);
  },
  loopback() {
    const headers = { Authorization: `Bearer ${process.env.INTEROP_TOKEN}` };
    const options = { requestInit: { headers } };
    return new StreamableHTTPClientTransport(new URL(process.env.INTEROP_URL), options);
  },
  stdio: () => new StdioClientTransport(bridge('raw')),
};

const options = era === 'modern' ? { versionNegotiation: { mode: 'auto' } } : {};
const sdk = new Client({ name: 'interop', version: '1' }, options);
await sdk.connect(ways[way]());
assert.equal(sdk.getNegotiatedProtocolVersion() === '2026-07-28', era === 'modern');
const passed = await run({
  list: what =>
    ({
      tools: () => pages(p => sdk.listTools(p), 'tools', 'name'),
      resources: () => pages(p => sdk.listResources(p), 'resources', 'uri'),
      templates: () => pages(p => sdk.listResourceTemplates(p), 'resourceTemplates', 'uriTemplate'),
      prompts: () => pages(p => sdk.listPrompts(p), 'prompts', 'name'),
    })[what](),
  call: (name, args, options) => sdk.callTool({ name, arguments: args }, options),
  read: uri => sdk.readResource({ uri }),
  prompt: (name, args) => sdk.getPrompt({ name, arguments: args }),
});
await sdk.close();
process.exit(passed ? 0 : 1);
