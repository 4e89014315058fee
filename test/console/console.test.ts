import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { describe, expect, test } from "vitest";
import { PAGE_FILES } from "../../src/console/page-files.ts";
import { MAX_VIEWERS } from "../../src/console/viewers.ts";
import { ConfigError } from "../../src/core/errors.ts";
import { sendPipelined } from "../support/pipelined-requests.ts";
import { silentConnections } from "../support/silent-connections.ts";
import { ended, StagedSource, session, startConsole } from "./support/staged.ts";

/** A request as it is, with any Host; fetch would set its own. */
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

/** The events of one connection, one by one; it ends with the generator. */
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
  test("is served whole, under a policy that lets nothing else in", async () => {
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

  test("has no script, style or handler in the text itself", async () => {
    await using served = await startConsole();
    const html = await textOf(await ask(served.url));
    expect(html).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|https?:\/\//i);
  });

  test("is all that there is, and HEAD is GET without its text", async () => {
    await using served = await startConsole();
    expect((await ask(`${served.url}/../package.json`)).statusCode).toBe(404);
    expect((await ask(`${served.url}/metrics`)).statusCode).toBe(404);
    const head = await ask(served.url, { method: "HEAD" });
    expect(Number(head.headers["content-length"])).toBeGreaterThan(1_000);
    expect(await textOf(head)).toBe("");
    expect((await ask(`${served.url}/?from=a-bookmark`)).statusCode).toBe(200);
  });

  test.each(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])(
    "%s is refused: nothing can be changed here",
    async (method) => {
      await using served = await startConsole();
      const response = await ask(served.url, { method, body: "x" });
      expect([response.statusCode, response.headers.allow, response.headers.connection]).toEqual([
        405,
        "GET, HEAD",
        "close",
      ]);
    },
  );
});

describe("who may look", () => {
  test.each(["/", "/events", "/page.js"])("%s is not told to a page that had its name lead here", async (path) => {
    await using served = await startConsole();
    const response = await ask(`${served.url}${path}`, { headers: { host: "rebound.example" } });
    expect(response.statusCode).toBe(421);
    expect(await textOf(response)).toContain("localhost");
  });

  test("events are refused to a page of another site", async () => {
    await using served = await startConsole();
    for (const site of ["cross-site", "same-site"]) {
      const response = await ask(`${served.url}/events`, { headers: { "sec-fetch-site": site } });
      expect(response.statusCode, site).toBe(403);
    }
  });

  test("whoever comes when all places are taken is told so, and when to come again", async () => {
    await using served = await startConsole();
    const all = await Promise.all(Array.from({ length: MAX_VIEWERS }, () => ask(`${served.url}/events`)));
    const late = await ask(`${served.url}/events`);
    expect([late.statusCode, late.headers["retry-after"]]).toEqual([503, "30"]);
    expect(await textOf(late)).toContain("close a window");
    for (const response of all) response.destroy();
    // A place is free once its connection is seen to be gone.
    await expect.poll(async () => (await ask(`${served.url}/events`)).statusCode).toBe(200);
  });
});

test("one connection takes one place, however often it asks", async () => {
  await using served = await startConsole();
  const events = "GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n";
  await sendPipelined(
    served.url.replace("http://", ""),
    Array.from({ length: MAX_VIEWERS }, () => events),
  );
  expect((await ask(`${served.url}/events`)).statusCode).toBe(200);
});

describe("events", () => {
  test("tell what is served here, then each change", async () => {
    await using served = await startConsole({ shards: 4 }, () => [1, 3]);
    const source = new StagedSource();
    served.observer.serves("agents/research", source);
    source.live = [session("a")];
    const events = eventsOf(served.url);
    expect((await events.next()).value).toMatchObject({
      whole: true,
      replica: { identity: "operator_1234abcd", shards: 4, served: [1, 3] },
      environments: { set: [{ key: "agents/research" }] },
      sessions: { set: [{ pod: "research-a", phase: "active" }] },
    });
    source.live = [];
    served.observer.sessionEnded("agents/research", ended("a", { reason: "OOMKilled", failed: true }));
    expect((await events.next()).value).toMatchObject({
      sessions: { set: [{ pod: "research-a", phase: "ended", reason: "OOMKilled", failed: true }], gone: [] },
    });
    await events.return(undefined);
  });

  test("go on, and the page is served, whoever else holds connections and says nothing", async () => {
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

test("an address that is taken or wrong is a ConfigError with the mend", async () => {
  await using served = await startConsole();
  const address = served.url.replace("http://", "");
  await expect(startConsole({ bindAddress: address })).rejects.toThrow(ConfigError);
  await expect(startConsole({ bindAddress: "8080" })).rejects.toThrow(/write :8080/);
});

test("a console that is switched off listens nowhere", async () => {
  const { url } = await startConsole({ bindAddress: "0" });
  expect(url).toBe("http://undefined");
});
