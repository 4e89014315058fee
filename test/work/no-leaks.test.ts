import { inspect } from "node:util";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { errorText } from "../../src/core/errors.ts";
import { createLogger } from "../../src/observe/logger.ts";
import type { WorkApiError } from "../../src/work/errors.ts";
import { shownText } from "../../src/work/replies.ts";
import { POLLED, QUEUED } from "./samples.ts";
import { failure, Setup } from "./setup.ts";
import type { Act } from "./strict-server.ts";

/** Any text that a header can carry. Most match no known credential format. */
const key = fc.string({
  unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
  minLength: 12,
  maxLength: 80,
});

const lines: string[] = [];
const logger = createLogger("info", { write: (line: string) => void lines.push(line) });

/** Every form in which an error may be printed. */
function everyForm(error: WorkApiError): string {
  lines.length = 0;
  logger.error({ err: error, error }, "failed");
  logger.error(error);
  return [
    error.message,
    String(error),
    error.stack ?? "",
    errorText(error),
    JSON.stringify(error),
    JSON.stringify(error, Object.getOwnPropertyNames(error)),
    inspect(error, { depth: 10, showHidden: true }),
    ...lines,
  ].join("\n");
}

/** Checks that the secret is hidden in its plain form and in its JSON form. */
function expectHidden(shown: string, secret: string): void {
  for (const form of [
    secret,
    JSON.stringify(secret).slice(1, -1),
    encodeURIComponent(secret),
    inspect(secret).slice(1, -1),
  ]) {
    expect(shown).not.toContain(form);
  }
}

/** Ways in which a server or proxy could send a key back. */
const echoes: Record<string, (secret: string) => Act> = {
  "in the error's message": (secret) => (response) => {
    response.writeHead(401, { "content-type": "application/json" });
    response.end(
      JSON.stringify({ error: { type: "authentication_error", message: `invalid key ${secret}, go away` } }),
    );
  },
  "in the error's type": (secret) => (response) => {
    response.writeHead(400);
    response.end(JSON.stringify({ error: { type: secret, message: secret.repeat(20) } }));
  },
  "at the place where the text is cut": (secret) => (response) => {
    response.writeHead(400);
    response.end(JSON.stringify({ error: { message: `${"x".repeat(295 - Math.floor(secret.length / 2))}${secret}` } }));
  },
  "in a web page": (secret) => (response) => {
    response.writeHead(502, { "content-type": "text/html" });
    response.end(`<html>${secret}</html>`);
  },
  "in the target of a redirect": (secret) => (response) => {
    response.writeHead(307, {
      location: `https://elsewhere.example/${encodeURIComponent(secret)}?k=${encodeURIComponent(secret)}`,
    });
    response.end();
  },
  "in the request's id": (secret) => (response) => {
    response.writeHead(500, { "request-id": secret });
    response.end();
  },
  "in Retry-After and Date": (secret) => (response) => {
    response.writeHead(429, { "retry-after": secret, date: secret });
    response.end();
  },
  "in a success of the wrong shape": (secret) => (response) => {
    response.end(JSON.stringify({ ...QUEUED, state: secret }));
  },
  "in half a JSON text": (secret) => (response) => {
    response.end(JSON.stringify({ secret }).slice(0, -1));
  },
  "in a reply that is cut off": (secret) => (response, _, socket) => {
    response.writeHead(200, { "content-length": "5000" });
    response.write(secret, () => socket.destroy());
  },
};

describe("no error shows a key that a server sends back", () => {
  it.each(Object.keys(echoes))("%s", async (name) => {
    let secret = "";
    await using setup = await Setup.start({ key: () => secret });
    await fc.assert(
      fc.asyncProperty(key, async (value) => {
        secret = value;
        const echo = echoes[name];
        if (!echo) throw new Error("no such case");
        setup.server.next(echo(secret), echo(secret));
        expectHidden(everyForm(await failure(setup.client.ack("work_01"))), secret);
        expectHidden(everyForm(await failure(setup.client.poll())), secret);
      }),
      { numRuns: 40 },
    );
  });

  it("including an API key", async () => {
    await using setup = await Setup.start();
    await fc.assert(
      fc.asyncProperty(key, async (apiKey) => {
        setup.server.next((response, seen) => {
          response.writeHead(403);
          response.end(JSON.stringify({ error: { message: String(seen.headers["x-api-key"]) } }));
        });
        expectHidden(everyForm(await failure(setup.client.retrieve("work_01", { apiKey }))), apiKey);
      }),
      { numRuns: 40 },
    );
  });

  it("including a key that can't be sent", async () => {
    let secret = "";
    await using setup = await Setup.start({ key: () => secret });
    await fc.assert(
      fc.asyncProperty(key, fc.constantFrom("\n", "\u0000", "é", " "), async (value, odd) => {
        secret = `${value}${odd}${value}`;
        expectHidden(everyForm(await failure(setup.client.poll())), value);
      }),
    );
    expect(setup.server.seen).toHaveLength(0);
  });

  it("or the secret of an item in a malformed reply", async () => {
    await using setup = await Setup.start();
    const wrong = [{ state: "odd" }, { data: null }, { created_at: "never" }];
    for (const change of wrong) {
      setup.server.next((response) => response.end(JSON.stringify({ ...POLLED, ...change })));
      expectHidden(everyForm(await failure(setup.client.poll())), POLLED.secret);
    }
    setup.server.next((response) => response.end(`${JSON.stringify(POLLED)}}`));
    expectHidden(everyForm(await failure(setup.client.poll())), POLLED.secret);
  });

  it("or a key inside the id of an item or environment", async () => {
    const secret = "plain-but-secret-0001";
    await using setup = await Setup.start({ key: () => secret, environmentId: `env_${secret}` });
    setup.server.fallback = (response) => response.writeHead(404).end();
    expectHidden(everyForm(await failure(setup.client.ack(`work_${secret}`))), secret);
    expectHidden(everyForm(await failure(setup.client.poll())), secret);
  });
});

describe("texts of a server", () => {
  it("lose a secret even if it is escaped, encoded, or joined by the cleanup", () => {
    const secret = 'top"secret/å+1';
    expect(shownText(`a ${JSON.stringify(secret)} b`, [secret])).toBe('a "[redacted]" b');
    expect(shownText(`a ${encodeURIComponent(secret)} b`, [secret])).toBe("a [redacted] b");
    expect(shownText("a two\nparts-secret b", ["two parts-secret"])).toBe("a [redacted] b");
    expect(shownText("a sk-ant-oat01-abcd b", [])).toBe("a sk-ant-[redacted] b");
  });

  it("are truncated only after the secret is masked, so that no part of it remains", () => {
    const secret = "0123456789abcdefghij";
    for (let at = 270; at <= 310; at += 1) {
      const shown = shownText(`${"x".repeat(at)}${secret} and more`, [secret]);
      expect(shown).not.toContain("01234");
      expect(shown.length).toBeLessThan(310);
    }
  });

  it("are not mangled by an empty or tiny secret", () => {
    expect(shownText("a plain message", ["", "a"])).toBe("a plain message");
  });
});
