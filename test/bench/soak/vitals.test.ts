import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { expect, test, vi } from "vitest";
import { INSPECTED, Inspector } from "../../../bench/soak/inspector.ts";
import { leastOf, readVitals, type Vitals } from "../../../bench/soak/vitals.ts";

const PROGRAM = new URL("./leaking-program.mjs", import.meta.url).pathname;
const MIB = 1_024 ** 2;

test("readVitals detects a leak of every kind from outside the process", async () => {
  const child = spawn(process.execPath, [...INSPECTED, PROGRAM], { stdio: "pipe" });
  try {
    const stray: string[] = [];
    createInterface({ input: child.stderr }).on("line", (line) => stray.push(line));
    const [port] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    const operator = { pid: child.pid ?? 0, addresses: { metrics: `127.0.0.1:${port}` }, stray };
    using inspector = await Inspector.connect(operator);
    // The first look loads modules that later looks need.
    await readVitals(operator, inspector);
    const before = await readVitals(operator, inspector);
    // The program may close the connection of an earlier look after the client has.
    const again = await vi.waitFor(
      async () => {
        const look = await readVitals(operator, inspector);
        expect(look.sockets).toBeLessThanOrEqual(before.sockets);
        return look;
      },
      { timeout: 20_000 },
    );
    for (let leak = 0; leak < 3; leak += 1) await (await fetch(`http://127.0.0.1:${port}/leak`)).text();
    const after = await readVitals(operator, inspector);
    const more = (from: Vitals, to: Vitals) =>
      Object.fromEntries(Object.entries(to).map(([name, value]) => [name, value - from[name as keyof Vitals]]));

    // A look must not count as a leak.
    const noise = more(before, again);
    expect(noise).toMatchObject({ files: 0, environmentSeries: 0, otherSeries: 0 });
    for (const measure of ["timers", "entries", "signals"]) expect(Math.abs(noise[measure] ?? 0)).toBeLessThan(20);
    expect(noise["heapBytes"]).toBeLessThan(MIB);

    const leaked = more(before, after);
    expect(leaked).toMatchObject({ files: 30, environmentSeries: 30, otherSeries: 0 });
    // The program also holds the other ends of its connections once it has accepted them.
    expect(leaked["sockets"]).toBeGreaterThanOrEqual(30);
    expect(leaked["handles"]).toBeGreaterThanOrEqual(30);
    expect(leaked["timers"]).toBeGreaterThanOrEqual(300);
    expect(leaked["signals"]).toBeGreaterThanOrEqual(300);
    expect(leaked["entries"]).toBeGreaterThanOrEqual(6_000);
    expect(leaked["heapBytes"]).toBeGreaterThan(3 * 6 * MIB);
    expect(leaked["rssBytes"]).toBeGreaterThan(0);
  } finally {
    child.kill("SIGKILL");
  }
}, 60_000);

test("the minimum of several looks ignores what exists only momentarily", () => {
  const quiet = { sockets: 3, timers: 9 } as Vitals;
  expect(leastOf([{ ...quiet, sockets: 8 }, quiet, { ...quiet, timers: 12 }])).toEqual(quiet);
});
