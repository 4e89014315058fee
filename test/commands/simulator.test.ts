import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, test } from "vitest";
import { ROOT } from "../project/lint-gate.ts";
import { Client } from "../simulator/client.ts";

/** The process loads all sources of the operator, possibly on a busy machine. */
const START_TIMEOUT_MS = 120_000;

const BERTH = join(ROOT, "bin/berth.mjs");

describe("berth simulator", { timeout: START_TIMEOUT_MS }, () => {
  test("runs the simulator with the given flags, and stops it cleanly", async () => {
    const child = spawn(process.execPath, [BERTH, "simulator", "--environment-id", "env_given", "--quiet"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    try {
      const said = new Map<string, string>();
      for await (const line of createInterface({ input: child.stdout })) {
        const [name = "", value = ""] = line.split("=");
        said.set(name, value);
        if (name === "ANTHROPIC_API_KEY") break;
      }
      expect(said.get("ANTHROPIC_ENVIRONMENT_ID")).toBe("env_given");
      const client = new Client({
        url: said.get("ANTHROPIC_BASE_URL") ?? "",
        environmentId: "env_given",
        bearer: said.get("ANTHROPIC_ENVIRONMENT_KEY") ?? "",
      });
      expect((await client.stats()).status).toBe(200);
    } finally {
      child.kill("SIGTERM");
    }
    expect(await ended).toBe(0);
  });

  test("shows the simulator's own help", async () => {
    const child = spawn(process.execPath, [BERTH, "simulator", "--help"], { stdio: ["ignore", "pipe", "inherit"] });
    let out = "";
    for await (const text of child.stdout) out += text;
    expect(out).toContain("--public-url <url>");
  });
});
