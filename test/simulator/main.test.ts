import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../simulator/main.ts", import.meta.url));
const children: ChildProcess[] = [];

afterEach(() => {
  for (const child of children.splice(0)) if (child.exitCode === null) child.kill("SIGKILL");
});

function start(...args: string[]) {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let out = "";
  let error = "";
  const listeners = new Set<() => void>();
  child.stdout.on("data", (chunk) => {
    out += chunk;
    for (const listener of listeners) listener();
  });
  child.stderr.on("data", (chunk) => {
    error += chunk;
  });
  const exit = new Promise<{ code: number | null; out: string; error: string }>((resolve) =>
    child.once("close", (code) => resolve({ code, out, error })),
  );
  /** Resolves with the first match in the output. */
  const printed = (pattern: RegExp) =>
    new Promise<RegExpExecArray>((resolve) => {
      const look = () => {
        const match = pattern.exec(out);
        if (match) resolve(match);
      };
      listeners.add(look);
      look();
    });
  return { child, exit, printed };
}

describe("the program", () => {
  test.each([
    [["--bogus"], "unknown option"],
    [["extra"], "too many arguments"],
    [["--port", "x"], "whole number"],
    [["--scale", "0"], "0.001 or more"],
    [["--public-url", "host:80"], "URL"],
    [["--switch", "lapse"], "name=value"],
    [["--switch", "lapse=novelty"], "requeue"],
    [["--switch", "novelty=1"], "novelty"],
  ])("exits with code 2 and a reason: %s", async (args, why) => {
    const { code, error } = await start(...args).exit;
    expect(code).toBe(2);
    expect(error).toContain(why);
    expect(error).toContain("--help");
  });

  test("--help names every flag", async () => {
    const { code, out } = await start("--help").exit;
    expect(code).toBe(0);
    for (const flag of ["--port", "--host", "--admin-token", "--scale", "--ttl", "--switch", "--rate", "--for"]) {
      expect(out).toContain(flag);
    }
  });

  test("prints what a worker needs, serves, and ends on SIGTERM with a report", async () => {
    const args = [
      "--items",
      "1",
      "--environment-id",
      "env_test",
      "--environment-key",
      "sk-ant-oat01-test",
      "--switch",
      "secrets=none",
    ];
    const { child, exit, printed } = start(...args);
    const [, url] = await printed(/ANTHROPIC_BASE_URL=(\S+)/);
    await printed(/ANTHROPIC_ENVIRONMENT_KEY=sk-ant-oat01-test/);
    const headers = {
      authorization: "Bearer sk-ant-oat01-test",
      "anthropic-beta": "managed-agents-2026-04-01",
      "anthropic-version": "1",
    };
    const poll = await fetch(`${url}/v1/environments/env_test/work/poll`, { headers });
    expect(await poll.json()).toMatchObject({ type: "work", secret: null });
    await printed(/offered \(queued\)/);
    child.kill("SIGTERM");
    const { code, out } = await exit;
    expect(code).toBe(0);
    expect(out).toContain('"poll 200": 1');
  });

  test("ends after --for seconds, with exit code 1 if a client made a mistake", async () => {
    const { exit, printed } = start("--for", "1", "--quiet", "--environment-id", "env_test", "--environment-key", "k");
    const [, url] = await printed(/ANTHROPIC_BASE_URL=(\S+)/);
    const headers = {
      authorization: "Bearer k",
      "anthropic-beta": "managed-agents-2026-04-01",
      "anthropic-version": "1",
    };
    await fetch(`${url}/v1/environments/env_test/work/poll?block_ms=0`, { headers });
    const { code, out } = await exit;
    expect(code).toBe(1);
    expect(out).toContain("VIOLATION invalid-poll");
  });
});
