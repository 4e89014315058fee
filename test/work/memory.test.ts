import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { BYTE_CHUNKS, CHUNKED, endless } from "./hostile-acts.ts";
import { StrictServer } from "./strict-server.ts";

const MAIN = new URL("./memory-main.ts", import.meta.url).pathname;

/** Node's own memory, the child's heap, and two pages (8 MB each) per concurrent call. */
const AT_A_TIME = 4;
const MAX_RSS_BYTES = 400_000_000;

test.each([
  ["in large pieces", Buffer.from(`10000\r\n${" ".repeat(0x10000)}\r\n`)],
  ["byte by byte", BYTE_CHUNKS],
])(
  "endless bodies %s use no more memory than their limit",
  async (_name, piece) => {
    await using server = await StrictServer.start();
    server.fallback = endless(CHUNKED, piece);
    const argv = ["--max-old-space-size=64", MAIN, server.origin, String(AT_A_TIME), "3"];
    const { stdout } = await promisify(execFile)(process.execPath, argv);
    const { kinds, maxRssBytes } = JSON.parse(stdout) as { kinds: Record<string, number>; maxRssBytes: number };
    expect(kinds).toEqual({ protocol: 3 * AT_A_TIME });
    expect(maxRssBytes).toBeLessThan(MAX_RSS_BYTES);
  },
  600_000,
);
