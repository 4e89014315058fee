import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { Death } from "./sudden-death.ts";

const HERE = fileURLToPath(new URL(".", import.meta.url));

/** Sends a request without a point, then one at each of two points, and prints the answers. */
const PROGRAM = `
  import { request } from "undici";
  import { pointsOf } from "${HERE}../../src/core/points.ts";
  import { realClock } from "${HERE}../../src/core/clock.ts";
  import { dieAt } from "${HERE}sudden-death.ts";
  const [url, death] = process.argv.slice(1);
  const points = pointsOf(dieAt(JSON.parse(death)), { operator: "o", clock: realClock })("ns/name");
  const send = async (path) => {
    const { body } = await request(url + path, { method: "POST", body: "{}" });
    await body.text();
    console.log("answered " + path);
  };
  void send("/beside");
  for (const name of ["one", "two"]) {
    await points.run(name, { workId: name, asks: { name } }, () => send("/" + name)).catch((error) => console.log(error.message));
  }
`;

/** Runs the program. The server answers late, so that a request can be in flight without an answer. */
async function run(death: Death): Promise<{ arrived: string[]; said: string; end: string | number | null }> {
  const arrived: string[] = [];
  const server = createServer((request, response) => {
    request.resume().once("end", () => {
      arrived.push(request.url ?? "");
      setTimeout(() => response.end("{}"), ANSWER_MS);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const args = ["--input-type=module", "-e", PROGRAM, url, JSON.stringify(death)];
  const child = spawn(process.execPath, args, { cwd: HERE, stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (chunk) => {
    said += chunk;
  });
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  await new Promise((resolve) => server.close(resolve));
  return { arrived: arrived.toSorted(), said, end: signal ?? code };
}

const ANSWER_MS = 100;

test.each([
  ["before", ["/beside", "/one"]],
  ["sent", ["/beside", "/one", "/two"]],
  ["after", ["/beside", "/one", "/two"]],
] as const)("dies at the second point, %s", async (phase, arrived) => {
  const death = { point: "two", phase };
  const ran = await run(death);
  expect(ran.end).toBe("SIGKILL");
  expect(ran.arrived).toEqual(arrived);
  expect(ran.said).toContain("answered /one");
  expect(ran.said.includes("answered /two")).toBe(phase === "after");
});

test("dies only at a request with the configured details", async () => {
  const ran = await run({ point: "one", phase: "before", asks: { name: "two" } });
  expect(ran).toMatchObject({ end: 0, arrived: ["/beside", "/one", "/two"] });
});

test("dies only at a request about the configured work item", async () => {
  expect(await run({ point: "one", phase: "before", item: 2 })).toMatchObject({ end: 0 });
  expect(await run({ point: "two", phase: "before", item: 2 })).toMatchObject({ end: "SIGKILL" });
});

test.each([
  ["before", ["/beside", "/two"]],
  ["after", ["/beside", "/one", "/two"]],
] as const)("loses an answer %s the request's effect", async (phase, arrived) => {
  const ran = await run({
    point: "none",
    phase: "before",
    unanswered: [{ point: "one", api: "kube", phase, times: 1 }],
  });
  expect(ran).toMatchObject({ end: 0, arrived });
  expect(ran.said).toContain("the answer of one is lost");
});
