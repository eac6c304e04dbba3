// What every client does, whatever carries it; the same plan as `plan.py`.
//
// A client is an object with `list`, `call`, `read`, `prompt` and `cancel`.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Agent } from 'undici';

const env = process.env;
export const address = `${env.INTEROP_HOST}:${env.INTEROP_PORT}`;
export const pki = env.INTEROP_PKI;
export const who = env.INTEROP_WHO;
const PATIENCE = 60_000;

/** TLS with the certificate of the identity that this client is. */
export const dispatcher = () =>
  new Agent({
    connect: {
      ca: readFileSync(`${pki}/ca.pem`),
      cert: readFileSync(`${pki}/${who}.crt`),
      key: readFileSync(`${pki}/${who}.key`),
    },
  });

/** `countersign connect` for stdio transports. */
export const bridge = way => ({
  command: env.INTEROP_PROGRAM,
  args: ['connect', '--transport', way, '--server', address, '--pki', pki, '--as', who],
});

const cancelled = () =>
  readFileSync(`${pki}/audit.jsonl`, 'utf8').split('"outcome":"cancelled"').length;

/** Every element of a list over all of its pages. */
export async function pages(method, member, key) {
  const found = [];
  let cursor;
  do {
    const page = await method(cursor === undefined ? {} : { cursor });
    found.push(...page[member].map(element => element[key]));
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return found;
}

export async function run(client) {
  let passed = true;
  const lists = {};
  const steps = {
    async lists_all() {
      for (const what of ['prompts', 'resources', 'templates', 'tools']) {
        lists[what] = await client.list(what);
      }
      assert(lists.tools.includes('files__read_file'));
      assert(!lists.tools.includes('files__write_file'));
      console.log('list', JSON.stringify(lists));
    },
    async calls() {
      const good = await client.call('files__read_file', { path: 'notes.txt' });
      assert(good.content[0].text.includes('milk') && !good.isError);
      const bad = await client.call('files__read_file', { path: 'no-such-file' });
      assert(bad.isError);
    },
    async reads() {
      const uri = lists.resources.find(uri => uri.endsWith('/notes.txt'));
      assert((await client.read(uri)).contents[0].text.includes('milk'));
    },
    async gets_a_prompt() {
      const prompt = await client.prompt('prompts__summarize', { path: 'notes.txt' });
      assert(prompt.messages[0].content.text.includes('notes.txt'));
    },
    async sees_progress() {
      const seen = [];
      const search = { path: 'many', content: 'needle' };
      const found = await client.call('files__search_files', search, {
        onprogress: ({ progress }) => seen.push(progress),
      });
      assert(!found.isError);
      assert(seen.length > 0 && seen.every((n, at) => at === 0 || seen[at - 1] < n), `${seen}`);
    },
    async cancels() {
      const before = cancelled();
      const stop = new AbortController();
      const search = { path: 'large', content: 'needle' };
      const options = { signal: stop.signal, onprogress: () => stop.abort() };
      await assert.rejects(client.call('files__search_files', search, options));
      const until = Date.now() + PATIENCE;
      while (cancelled() === before) {
        assert(Date.now() < until, 'the server never heard of it');
        await sleep(50);
      }
      await client.call('self__whoami', {});
    },
    async is_refused() {
      const refusal = /not granted|nknown/;
      const write = { path: 'x', content: 'y' };
      await assert.rejects(client.call('files__write_file', write), refusal);
      await assert.rejects(client.call('files__no_such_tool', {}), refusal);
      await assert.rejects(client.prompt('prompts__none', {}), refusal);
    },
  };
  for (const [name, step] of Object.entries(steps)) {
    try {
      await Promise.race([step(), late()]);
      console.log('ok', name);
    } catch (error) {
      passed = false;
      console.log('FAIL', name, String(error).replaceAll('\n', ' '));
      console.error(error);
    }
  }
  return passed;
}

async function late() {
  await sleep(PATIENCE, undefined, { ref: false });
  throw new Error('not over in time');
}
