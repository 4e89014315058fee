import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { describe, expect, test } from "vitest";
import { PAGE_FILES } from "../../src/console/page-files.ts";
import { MAX_VIEWERS } from "../../src/console/viewers.ts";
import { ConfigError } from "../../src/core/errors.ts";
import { sendPipelined } from "../support/pipelined-requests.ts";
import { silentConnections } from "../support/silent-connections.ts";
import { ended, StagedSource, session, startConsole } from "./support/staged.ts";

/** Sends a raw request with any Host header, which fetch would override. */
async function ask(url: string, options: { method?: string; headers?: Record<string, string>; body?: string } = {}) {
  const { body, ...rest } = options;
  const asked = request(url, { agent: false, ...rest });
  asked.end(body);
  const [response]: IncomingMessage[] = await once(asked, "response");
  if (!response) throw new Error("no response");
  return response;
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) text += chunk;
  return text;
}

/** The events of one connection, one at a time. The connection ends with the generator. */
async function* eventsOf(url: string) {
  const response = await ask(`${url}/events`);
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) {
    text += chunk;
    const parts = text.split("\n\n");
    text = parts.pop() ?? "";
    for (const part of parts) yield JSON.parse(part.replace(/^data: /, ""));
  }
}

describe("the page", () => {
  test("is served completely, under a policy that allows nothing else", async () => {
    await using served = await startConsole();
    for (const [path, { type }] of Object.entries(PAGE_FILES)) {
      const response = await ask(`${served.url}${path}`);
      expect([response.statusCode, response.headers["content-type"]], path).toEqual([200, type]);
      expect(response.headers, path).toMatchObject({
        "content-security-policy": expect.stringMatching(/^default-src 'none'; script-src 'self'; style-src 'self';/),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
        "cross-origin-resource-policy": "same-origin",
      });
      expect(response.headers).not.toHaveProperty("access-control-allow-origin");
      expect(Buffer.byteLength(await textOf(response)), path).toBe(Number(response.headers["content-length"]));
    }
  });

  test("has no inline script, style or event handler", async () => {
    await using served = await startConsole();
    const html = await textOf(await ask(served.url));
    expect(html).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|https?:\/\//i);
  });

  test("is the only content, and HEAD is GET without the body", async () => {
    await using served = await startConsole();
    expect((await ask(`${served.url}/../package.json`)).statusCode).toBe(404);
    expect((await ask(`${served.url}/metrics`)).statusCode).toBe(404);
    const head = await ask(served.url, { method: "HEAD" });
    expect(Number(head.headers["content-length"])).toBeGreaterThan(1_000);
    expect(await textOf(head)).toBe("");
    expect((await ask(`${served.url}/?from=a-bookmark`)).statusCode).toBe(200);
  });

  test.each(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])("refuses %s, because it is read-only", async (method) => {
    await using served = await startConsole();
    const response = await ask(served.url, { method, body: "x" });
    expect([response.statusCode, response.headers.allow, response.headers.connection]).toEqual([
      405,
      "GET, HEAD",
      "close",
    ]);
  });
});

describe("access to the console", () => {
  test.each(["/", "/events", "/page.js"])(
    "refuses %s to a page whose host name was rebound to this address",
    async (path) => {
      await using served = await startConsole();
      const response = await ask(`${served.url}${path}`, { headers: { host: "rebound.example" } });
      expect(response.statusCode).toBe(421);
      expect(await textOf(response)).toContain("localhost");
    },
  );

  test("refuses events to a page of another site", async () => {
    await using served = await startConsole();
    for (const site of ["cross-site", "same-site"]) {
      const response = await ask(`${served.url}/events`, { headers: { "sec-fetch-site": site } });
      expect(response.statusCode, site).toBe(403);
    }
  });

  test("refuses a viewer beyond the limit and says when to retry", async () => {
    await using served = await startConsole();
    const all = await Promise.all(Array.from({ length: MAX_VIEWERS }, () => ask(`${served.url}/events`)));
    const late = await ask(`${served.url}/events`);
    expect([late.statusCode, late.headers["retry-after"]]).toEqual([503, "30"]);
    expect(await textOf(late)).toContain("close a window");
    for (const response of all) response.destroy();
    // A slot is free once the server has noticed that its connection is gone.
    await expect.poll(async () => (await ask(`${served.url}/events`)).statusCode).toBe(200);
  });
});

test("one connection uses one slot, however many requests it pipelines", async () => {
  await using served = await startConsole();
  const events = "GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n";
  await sendPipelined(
    served.url.replace("http://", ""),
    Array.from({ length: MAX_VIEWERS }, () => events),
  );
  expect((await ask(`${served.url}/events`)).statusCode).toBe(200);
});

describe("events", () => {
  test("contain what this replica serves, then each change", async () => {
    await using served = await startConsole({ shards: 4 }, () => [1, 3]);
    const source = new StagedSource();
    served.observer.serves("agents/research", source);
    source.live = [session("a")];
    const events = eventsOf(served.url);
    expect((await events.next()).value).toMatchObject({
      whole: true,
      replica: { identity: "operator_1234abcd", shards: 4, served: [1, 3] },
      environments: { set: [{ key: "agents/research" }] },
      sessions: { set: [{ pod: "research-a", phase: "running" }] },
    });
    source.live = [];
    served.observer.sessionEnded("agents/research", ended("a", { reason: "OOMKilled", failed: true }));
    expect((await events.next()).value).toMatchObject({
      sessions: { set: [{ pod: "research-a", phase: "ended", reason: "OOMKilled", failed: true }], gone: [] },
    });
    await events.return(undefined);
  });

  test("and the page are served while silent connections are open", async () => {
    await using served = await startConsole();
    const source = new StagedSource();
    served.observer.serves("agents/research", source);
    const events = eventsOf(served.url);
    await events.next();
    using _ = await silentConnections(served.url.replace("http://", ""), 6 * MAX_VIEWERS);
    expect((await ask(served.url)).statusCode).toBe(200);
    served.observer.sessionEnded("agents/research", ended("a"));
    expect((await events.next()).value).toMatchObject({ sessions: { set: [{ pod: "research-a" }] } });
    await events.return(undefined);
  });

  test("end with the console", async () => {
    const served = await startConsole();
    const response = await ask(`${served.url}/events`);
    const over = once(response, "close").catch(() => {});
    response.on("error", () => {});
    response.resume();
    await served.close();
    await over;
    expect(response.destroyed).toBe(true);
  });
});

test("an address that is in use or invalid is a ConfigError that says how to fix it", async () => {
  await using served = await startConsole();
  const address = served.url.replace("http://", "");
  await expect(startConsole({ bindAddress: address })).rejects.toThrow(ConfigError);
  await expect(startConsole({ bindAddress: "8080" })).rejects.toThrow(/write :8080/);
});

test("a disabled console does not listen", async () => {
  const { url } = await startConsole({ bindAddress: "0" });
  expect(url).toBe("http://undefined");
});
