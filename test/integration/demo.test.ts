import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { findBinaries } from "../../testbed/cluster/build.ts";
import { useCluster } from "../support/cluster.ts";

const MAIN = join(import.meta.dirname, "../../demo/main.ts");

/** Far more than any step takes, so that only a hang fails the test. */
const PATIENCE_MS = 150_000;
const POLL_MS = 50;

const cluster = useCluster();
/** The demo's own folder for temporary files, to detect leftovers. */
let temporary: string;
/** A separate cache, so that the demo's cluster is not announced to other processes. */
let cache: string;
let assets: string;

beforeAll(async () => {
  temporary = await mkdtemp(join(tmpdir(), "berth-test-demo-"));
  cache = await mkdtemp(join(tmpdir(), "berth-test-cache-"));
  ({ dir: assets } = await findBinaries());
});
afterAll(async () => {
  await rm(temporary, { recursive: true, force: true });
  await rm(cache, { recursive: true, force: true });
});

/** A demo in its own process. */
class Demo {
  readonly ended: Promise<number | string>;
  output = "";
  readonly #child: ChildProcess;
  #changed = Promise.withResolvers<void>();

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const own = { TMPDIR: temporary, XDG_CACHE_HOME: cache, KUBEBUILDER_ASSETS: assets };
    this.#child = spawn(process.execPath, [MAIN, ...args], {
      // Clears the npm variable, so that the demo does not watch for the end of npm.
      env: { ...process.env, npm_lifecycle_event: undefined, ...own, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.output += text;
        this.#wake();
      });
    }
    this.ended = once(this.#child, "close").then(([code, signal]) => {
      this.#wake();
      return (code ?? signal) as number | string;
    });
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Waits until the output matches. Throws with the whole output if the demo ends first. */
  async until(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.output);
      if (match) return match;
      if (this.#child.exitCode !== null) throw new Error(`ended without ${pattern}:\n${this.output}`);
      await this.#changed.promise;
    }
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

interface ProcessId {
  readonly pid: number;
  readonly startedAt: string;
}

function statOf(pid: number): { parent: number; startedAt: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [state, parent, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return state === "Z" ? undefined : { parent: Number(parent), startedAt: rest[17] ?? "" };
  } catch {
    return undefined;
  }
}

/** All descendants of a process. */
function descendants(pid: number): ProcessId[] {
  const all = readdirSync("/proc").flatMap((entry) => {
    const stat = /^\d+$/.test(entry) ? statOf(Number(entry)) : undefined;
    return stat ? [{ pid: Number(entry), ...stat }] : [];
  });
  const members = new Map<number, ProcessId>();
  for (let before = -1; before !== members.size; ) {
    before = members.size;
    for (const it of all) if (it.parent === pid || members.has(it.parent)) members.set(it.pid, it);
  }
  return [...members.values()];
}

const alive = (processes: readonly ProcessId[]) =>
  processes.filter(({ pid, startedAt }) => statOf(pid)?.startedAt === startedAt);

function commandOf({ pid }: ProcessId): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "gone";
  }
}

const commands = (processes: readonly ProcessId[]) => processes.map(commandOf).join("\n");

/** The names of the demos' objects in the cluster that still exist. */
async function demoObjects(): Promise<string[]> {
  const names = async (path: string) => {
    const { items } = await cluster.api.get<{ items: { metadata: { name: string } }[] }>(path);
    return items.map(({ metadata }) => metadata.name).filter((name) => name.startsWith("berth-demo-"));
  };
  const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
  return (await Promise.all(["/api/v1/namespaces", "/api/v1/nodes", leases].map(names))).flat();
}

describe("npm run demo -- --use-cluster", () => {
  const inCluster = () => ({ KUBECONFIG: cluster.kubeconfig });

  test(
    "serves every session of both Environments for 20 s, reports them in plain lines, and leaves nothing",
    async () => {
      const demo = new Demo(["--use-cluster", "--for", "20s", "--rate", "0.4"], inCluster());
      const [, namespace = ""] = await demo.until(/get benv,deployments,pods -n (berth-demo-\w+)/);
      await demo.until(/research 1: first heartbeat/);
      const early = descendants(demo.pid);
      expect(commands(early)).toMatch(/berth\.mjs run/);
      expect(commands(early)).toMatch(/worker\/worker\.mjs/);
      await demo.until(/batch 1: first heartbeat/);
      const started = [...early, ...descendants(demo.pid)];
      expect(commands(started)).toMatch(/worker\/always-on\.mjs/);
      const { items: environments } = await cluster.api.get<{ items: { metadata: { name: string } }[] }>(
        `/apis/berth.dev/v1alpha1/namespaces/${namespace}/environments`,
      );
      expect(environments.map(({ metadata }) => metadata.name).sort()).toEqual(["batch", "research"]);
      // No other Pods may be scheduled there.
      const node = await cluster.api.get<{ spec: { taints: { effect: string }[] }; metadata: { labels: object } }>(
        `/api/v1/nodes/${namespace}`,
      );
      expect(node.spec.taints.map(({ effect }) => effect).sort()).toEqual(["NoExecute", "NoSchedule"]);
      expect(node.metadata.labels).toMatchObject({ "kubernetes.io/os": "simulated" });

      expect(await demo.ended, demo.output).toBe(0);

      const { output } = demo;
      const steps = [
        "queued: ",
        "claimed after",
        "opened in Pod berth-research-",
        "session started",
        "first heartbeat",
      ];
      for (const step of [...steps, "served, stopped after", "Pod berth-research-"]) {
        expect(output).toMatch(new RegExp(`^ +\\d+\\.\\ds {2}research 1: ${step}`, "m"));
      }
      expect(output).toMatch(/research \d+: (\$|write) .* -> /);
      const taken = ["queued: ", "claimed by worker berth-batch-", "first heartbeat", "served, stopped after"];
      for (const step of taken) expect(output).toMatch(new RegExp(`^ +\\d+\\.\\ds {2}batch 1: ${step}`, "m"));
      // The workers scale up from zero and back on their own, before the Environments are deleted.
      const [life = ""] = output.split("cleaning up");
      expect(life).toMatch(/batch: scaled from 0 to \d workers?\n/);
      expect(life).toMatch(/batch: scaled from \d to 0 workers\n/);
      expect(output).toMatch(/^research: (\d+) of \1 served, a Pod for each session$/m);
      expect(output).toMatch(/^batch: (\d+) of \1 served, by at most [1-3] workers?$/m);
      const [, served, arrived, calls] = /Served (\d+) of (\d+) work item.*, with (\d+) tool call/.exec(output) ?? [];
      expect(Number(served)).toBe(Number(arrived));
      expect(Number(calls)).toBeGreaterThanOrEqual(Number(served));
      expect(output).toMatch(/Protocol violations +none\nLeft over +nothing/);
      expect(output).not.toContain("\x1b");
      expect(output).not.toMatch(/sk-ant-|undefined|NaN/);
      expect(alive(started)).toEqual([]);
      expect(await demoObjects()).toEqual([]);
      expect(await readdir(temporary)).toEqual([]);
    },
    PATIENCE_MS,
  );

  test(
    "shuts down in order on Ctrl-C, prints the summary, and leaves nothing",
    async () => {
      const demo = new Demo(["--use-cluster"], inCluster());
      await demo.until(/research 1: first heartbeat/);
      const started = descendants(demo.pid);
      demo.signal("SIGINT");
      expect(await demo.ended, demo.output).toBe(0);
      expect(demo.output).toMatch(/research 1: served/);
      expect(demo.output).toMatch(/batch 1: served/);
      expect(demo.output).toMatch(/Served \d+ of \d+ work item/);
      expect(alive(started)).toEqual([]);
      expect(await demoObjects()).toEqual([]);
      expect(await readdir(temporary)).toEqual([]);
    },
    PATIENCE_MS,
  );

  test("refuses to guess a cluster", async () => {
    const demo = new Demo(["--use-cluster"], { KUBECONFIG: "" });
    expect(await demo.ended).toBe(2);
    expect(demo.output).toMatch(/--use-cluster needs KUBECONFIG.*\nusage: npm run demo/);
  });

  test("reports a bad kubeconfig in one line, and leaves nothing", async () => {
    const demo = new Demo(["--use-cluster"], { KUBECONFIG: "/nonesuch/kubeconfig" });
    expect(await demo.ended).toBe(1);
    expect(demo.output.trim()).toMatch(/^.*\/nonesuch\/kubeconfig.*$/);
    expect(await readdir(temporary)).toEqual([]);
  });
});

describe("npm run demo", () => {
  test(
    "lets a session sleep, and wakes it in the same Pod, where it finds its file",
    async () => {
      const demo = new Demo(["--workers", "0"]);
      const [, pod = ""] = await demo.until(/research 1: sleeps in Pod (\S+)\n/);
      await demo.until(/research 1: served(.|\n)*research 1: served/);
      demo.signal("SIGINT");
      expect(await demo.ended, demo.output).toBe(0);
      const { output } = demo;
      expect(output).toMatch(/research 1: comes back: /);
      expect(output).toContain(`research 1: woken in Pod ${pod} after`);
      expect(output).toMatch(/research 1: \$ .* -> bread milk apples\n/);
      expect(output).toMatch(/^ {2}woken in their own Pod: (\d+) of \1, own files found: (\d+) of \2$/m);
      expect(output).not.toContain("the simulated node failed");
    },
    PATIENCE_MS,
  );

  test(
    "leaves no process and no folder when it is killed, including its control plane",
    async () => {
      const demo = new Demo([]);
      await demo.until(/research 1: first heartbeat/);
      await demo.until(/batch 1: first heartbeat/);
      const started = descendants(demo.pid);
      for (const name of [/kube-apiserver/, /etcd/, /berth\.mjs run/, /always-on\.mjs/]) {
        expect(commands(started)).toMatch(name);
      }
      demo.signal("SIGKILL");
      expect(await demo.ended).toBe("SIGKILL");
      const bound = AbortSignal.timeout(PATIENCE_MS / 2);
      const left = async () => [...alive(started), ...(await readdir(temporary))];
      while ((await left()).length > 0 && !bound.aborted) await delay(POLL_MS);
      expect(await left()).toEqual([]);
    },
    PATIENCE_MS,
  );

  test(
    "fails and keeps the operator's log when the operator is killed",
    async () => {
      const demo = new Demo(["--scripted", "--rate", "1"]);
      await demo.until(/research 1: first heartbeat/);
      await demo.until(/batch 1: first heartbeat/);
      const operator = descendants(demo.pid).find((it) => /berth\.mjs run/.test(commandOf(it)));
      if (!operator) throw new Error("no operator");
      process.kill(operator.pid, "SIGKILL");
      expect(await demo.ended, demo.output).toBe(1);
      expect(demo.output).toMatch(/the operator ended unexpectedly \(SIGKILL\)/);
      const [, log = ""] = /The operator's log is in (\S+)/.exec(demo.output) ?? [];
      expect(readFileSync(log, "utf8")).toContain("berth starts");
      // The named log is kept, and nothing else.
      expect((await readdir(temporary)).map((name) => join(temporary, name))).toEqual([dirname(log)]);
      await rm(dirname(log), { recursive: true });
    },
    PATIENCE_MS,
  );
});
