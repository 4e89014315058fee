import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { quantiles } from "../report/distribution.ts";
import type { Cell, Context, Findings, Scenario, Table } from "../scenario.ts";
import { OPERATOR_NAMESPACE, type Served, Stand } from "../support/stand.ts";
import { resident, type Started, untilReady } from "../support/started.ts";

/** One start of a process, and its memory after it has been idle for a while. */
interface Sample extends Started {
  /** From its start to its first poll of the queue. */
  readonly pollMs?: number;
  /** In MiB. */
  readonly rss: number;
  readonly anonymous: number;
  readonly heapUsed: number;
}

/** The libraries that the operator loads at its start. */
const PARTS = ["node:http", "undici", "zod", "pino", "prom-client", "commander", "yaml", "@kubernetes/client-node"];
const BUILT = "./dist/main.js";

const MIB = 1_024 ** 2;
const PATIENCE_MS = 60_000;
const CPU_AT_MOST = 5;
const RSS_AT_MOST = 2;

export const startUp: Scenario = {
  name: "start-up",
  title: "Start-up",
  about:
    "The time from the start of the operator's process until it is ready, and until its first poll. Also its memory " +
    "after some idle seconds. The operator is built, and has the image's environment variables. The limit is a " +
    "minimal Node process that only answers over HTTP. They start in turns, one at a time.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  const [samples, idleMs] = options.quick ? [1, 1_000] : [7, 5_000];
  await using stand = await Stand.start();
  await stand.node({ seed: options.seed });
  const simulator = await stand.simulator();
  const { id: environmentId } = simulator.createEnvironment();
  const none = await stand.namespace("start-none");
  const served: Served = { namespace: await stand.namespace("start-one"), name: "bench", simulator, environmentId };
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  await stand.environment(served, { sessions: { maxConcurrent: 10, warm: 1, template } });

  const found = { bare: [] as Sample[], none: [] as Sample[], one: [] as Sample[] };
  // The first start isn't counted, because it creates the Pod that later starts find parked.
  for (let at = 0; at <= samples; at += 1) {
    const bare = await bareNode(idleMs);
    const empty = await berth(stand, { ...served, namespace: none }, idleMs, false);
    const one = await berth(stand, served, idleMs, true);
    if (at === 0) continue;
    log(`${at} of ${samples}: ready after ${one.readyMs.toFixed(0)} ms, bare Node after ${bare.readyMs.toFixed(0)} ms`);
    found.bare.push(bare);
    found.none.push(empty);
    found.one.push(one);
  }
  const middle = (of: readonly Sample[], value: (sample: Sample) => number) => quantiles(of.map(value)).p50;
  const ratio = (value: (sample: Sample) => number) => middle(found.one, value) / middle(found.bare, value);
  return {
    tables: [startTable(found), memoryTable(found), await partsTable(options.quick ? 1 : 5)],
    gates: [
      {
        name: "CPU time to ready, divided by bare Node's",
        value: ratio((s) => s.readyCpuMs),
        atMost: CPU_AT_MOST,
        unit: "x",
      },
      { name: "RSS when idle, divided by bare Node's", value: ratio(({ rss }) => rss), atMost: RSS_AT_MOST, unit: "x" },
    ],
    notes: [
      "RSS includes pages of Node's binary, which all Node processes on a machine share. `anonymous` is a process' " +
        "own memory. A comparable operator in Go has 58 to 66 MiB of RSS when idle.",
    ],
  };
}

async function bareNode(idleMs: number): Promise<Sample> {
  const main = new URL("../support/bare-server.mjs", import.meta.url).pathname;
  const startedAt = performance.now();
  const child = spawn(process.execPath, [main], { stdio: ["ignore", "pipe", "inherit"] });
  const [address] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  const url = `http://${address}`;
  const started = await untilReady(child.pid ?? 0, url, startedAt);
  await pause(idleMs);
  const { heapUsed } = (await (await fetch(url)).json()) as NodeJS.MemoryUsage;
  const sample = await sampleOf(started, heapUsed);
  child.kill();
  await once(child, "exit");
  return sample;
}

async function berth(stand: Stand, served: Served, idleMs: number, polls: boolean): Promise<Sample> {
  const { simulator, environmentId, namespace } = served;
  const [startedAt, wallMs] = [performance.now(), Date.now()];
  const flags = ["--namespace", namespace, "--leader-elect-namespace", OPERATOR_NAMESPACE];
  const operator = await stand.operator(simulator.url, flags);
  const started = await untilReady(operator.pid, `http://${operator.addresses.health}/readyz`, startedAt);
  const firstPoll = () => simulator.requests(environmentId).find(({ call, at }) => call === "poll" && at >= wallMs);
  if (polls) await simulator.waitFor(() => firstPoll() !== undefined, { what: "a poll", timeoutMs: PATIENCE_MS });
  await pause(idleMs);
  const metrics = await (await fetch(`http://${operator.addresses.metrics}/metrics`)).text();
  const heapUsed = Number(/^nodejs_heap_size_used_bytes (\S+)$/m.exec(metrics)?.[1]);
  const sample = await sampleOf(started, heapUsed);
  await operator.stop();
  const poll = firstPoll();
  return polls && poll !== undefined ? { ...sample, pollMs: poll.at - wallMs } : sample;
}

async function sampleOf(started: Started, heapUsed: number): Promise<Sample> {
  const { total, anonymous } = await resident(started.pid);
  return { ...started, rss: total, anonymous, heapUsed: heapUsed / MIB };
}

type Found = Readonly<Record<"bare" | "none" | "one", readonly Sample[]>>;

const NAMES = { bare: "bare Node", none: "Berth, no Environment", one: "Berth, one Environment" } as const;
const KINDS = Object.keys(NAMES) as (keyof Found)[];

function startTable(found: Found): Table {
  const rows = KINDS.flatMap((kind) => {
    const row = (what: string, values: readonly number[]): Cell[] => {
      const { p50, p90, max } = quantiles(values);
      return [`${NAMES[kind]}: ${what}`, values.length, p50, p90, max];
    };
    const polls = found[kind].flatMap(({ pollMs }) => pollMs ?? []);
    return [
      row(
        "ready",
        found[kind].map(({ readyMs }) => readyMs),
      ),
      row(
        "CPU time to ready",
        found[kind].map(({ readyCpuMs }) => readyCpuMs),
      ),
      ...(polls.length === 0 ? [] : [row("first poll", polls)]),
    ];
  });
  return { title: "From the start of the process", columns: ["milliseconds", "starts", "p50", "p90", "max"], rows };
}

function memoryTable(found: Found): Table {
  const rows = KINDS.map((kind): Cell[] => {
    const middle = (value: (sample: Sample) => number) => quantiles(found[kind].map(value)).p50;
    return [NAMES[kind], middle(({ rss }) => rss), middle((s) => s.anonymous), middle(({ heapUsed }) => heapUsed)];
  });
  return { title: "Memory when idle", columns: ["MiB, medians", "RSS", "anonymous part", "heap used"], rows };
}

/** Measures what loading each library costs in its own process. */
async function partsTable(samples: number): Promise<Table> {
  const rows: Cell[][] = [];
  for (const part of [undefined, ...PARTS, BUILT]) {
    const found: { readonly cpuMs: number; readonly rss: number; readonly heapUsed: number }[] = [];
    for (let at = 0; at < samples; at += 1) found.push(await loaded(part));
    const middle = (value: (one: (typeof found)[number]) => number) => quantiles(found.map(value)).p50;
    const name = part === undefined ? "nothing" : part === BUILT ? "Berth, built" : part;
    rows.push([name, middle((one) => one.cpuMs), middle(({ rss }) => rss), middle((one) => one.heapUsed)]);
  }
  return { title: "Cost of each library", columns: ["loaded alone", "CPU ms", "RSS, MiB", "heap used, MiB"], rows };
}

async function loaded(part: string | undefined) {
  const load = part === undefined ? "" : `await import(${JSON.stringify(part)});`;
  const code = `${load} console.log(JSON.stringify({ ...process.memoryUsage(), ...process.cpuUsage() }));`;
  const args = ["--input-type=module", "--eval", code];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  const { rss, heapUsed, user, system } = JSON.parse(stdout) as NodeJS.MemoryUsage & NodeJS.CpuUsage;
  return { cpuMs: (user + system) / 1_000, rss: rss / MIB, heapUsed: heapUsed / MIB };
}
