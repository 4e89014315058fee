import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { PassThrough } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Attach, KubeConfig } from "@kubernetes/client-node";
import { showProgress } from "../cluster/progress.ts";
import { buildImages } from "../images/images.ts";
import { GVISOR_CLASS } from "../real-node/gvisor.ts";
import { type NodeCluster, startNodeCluster } from "../real-node/node-cluster.ts";
import { compileStatic, INIT_SOURCE } from "./init-binary.ts";

// Tries berth-init on a real node, and prints what it found: `node testbed/init/try-on-node.ts [--gvisor] [TRIAL...]`. It
// ends with an error at the first thing that is not as docs/decisions/0031-first-process.md says.

const NAMESPACE = "trials";
const IMAGE = "localhost/berth-worker-typescript:e2e";
const PATIENCE_MS = 120_000;
/** The kubelet's limit for a Pod. */
const PROCESSES = 12_000;

/** A state as berth-init reports it (init/README.md), word by word. */
interface State {
  readonly boot: string;
  readonly nonce: string;
  readonly claim: string;
  readonly phase: string;
  /** What follows `ended`. */
  readonly how: string;
  readonly atMs: number;
}

interface Trial {
  readonly cluster: NodeCluster;
  readonly runtimeClassName: string | undefined;
}

/** The container of a Pod, and a connection to its first process. */
class Container implements AsyncDisposable {
  readonly #trial: Trial;
  readonly name: string;
  #stdin = new PassThrough();
  #close: () => void = () => {};
  #states: State[] = [];
  #changed = Promise.withResolvers<void>();
  #nonces = 0;
  #number = 0;
  boot = "";

  private constructor(trial: Trial, name: string) {
    this.#trial = trial;
    this.name = name;
  }

  static async start(
    trial: Trial,
    name: string,
    script: string,
    spec: Record<string, unknown> = {},
  ): Promise<Container> {
    const { cluster, runtimeClassName } = trial;
    const { resources, grace = 30, ...more } = spec as { resources?: object; grace?: number };
    await cluster.api.create(`/api/v1/namespaces/${NAMESPACE}/pods`, {
      metadata: { name },
      spec: {
        restartPolicy: "OnFailure",
        terminationGracePeriodSeconds: grace,
        automountServiceAccountToken: false,
        enableServiceLinks: false,
        ...(runtimeClassName && { runtimeClassName }),
        securityContext: { runAsNonRoot: true, runAsUser: 10_001, seccompProfile: { type: "RuntimeDefault" } },
        containers: [
          {
            name: "main",
            image: IMAGE,
            stdin: true,
            command: ["/berth/berth-init", "--message", "/dev/termination-log", "--", "/bin/sh", "-c", script],
            workingDir: "/workspace",
            resources: resources ?? { limits: { memory: "256Mi" }, requests: { cpu: "10m" } },
            securityContext: {
              allowPrivilegeEscalation: false,
              readOnlyRootFilesystem: true,
              capabilities: { drop: ["ALL"] },
            },
            volumeMounts: [
              { name: "berth", mountPath: "/berth", readOnly: true },
              { name: "workspace", mountPath: "/workspace" },
            ],
          },
        ],
        volumes: [
          { name: "berth", configMap: { name: "berth-init", defaultMode: 0o555 } },
          { name: "workspace", emptyDir: {} },
        ],
        ...more,
      },
    });
    const container = new Container(trial, name);
    await container.attached();
    return container;
  }

  /** Another connection to a container. */
  static async attachedTo(other: Container): Promise<Container> {
    const container = new Container(other.#trial, other.name);
    await container.attached();
    return container;
  }

  async pod() {
    interface Status {
      readonly phase: string;
      readonly containerStatuses?: readonly { readonly restartCount: number; readonly state: Record<string, object> }[];
    }
    const { api } = this.#trial.cluster;
    return await api.get<{ status: Status }>(`/api/v1/namespaces/${NAMESPACE}/pods/${this.name}`);
  }

  async restarts(): Promise<number> {
    return (await this.pod()).status.containerStatuses?.[0]?.restartCount ?? 0;
  }

  /** Connects to its first process, as often as it takes, and greets it. Returns its state. */
  async attached(): Promise<State> {
    const kubeConfig = new KubeConfig();
    kubeConfig.loadFromFile(this.#trial.cluster.kubeconfig);
    for (const untilMs = Date.now() + PATIENCE_MS; ; ) {
      this.#close();
      this.#stdin = new PassThrough();
      const stderr = new PassThrough();
      try {
        const attach = new Attach(kubeConfig);
        const socket = await attach.attach(NAMESPACE, this.name, "main", null, stderr, this.#stdin, false);
        socket.onerror = () => {};
        this.#close = () => socket.close();
        this.#read(stderr);
        const state = await Promise.race([this.ask("hello"), delay(1000)]);
        if (state) {
          this.boot = state.boot;
          return state;
        }
      } catch (error) {
        if (Date.now() > untilMs) throw error;
      }
      if (Date.now() > untilMs) throw new Error(`${this.name} does not answer: ${JSON.stringify(await this.pod())}`);
      await delay(100);
    }
  }

  /** Sends a line, and returns its answer. */
  async ask(verb: string, ...words: readonly (string | number)[]): Promise<State> {
    this.#nonces += 1;
    const nonce = `n${this.#nonces}`;
    const text = [verb, nonce, ...words].join(" ");
    this.#stdin.write(`\nberth2 ${text.length} ${text} #end\n`);
    return await this.next((state) => state.nonce === nonce);
  }

  async run(variables = "A=1", times = "0 30"): Promise<State> {
    this.#number += 1;
    return await this.ask("run", this.boot, `claim-${this.#number}`, this.#number, times, variables);
  }

  get claim(): string {
    return `claim-${this.#number}`;
  }

  /** The next report that a test wants. */
  async next(wants: (state: State) => boolean): Promise<State> {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    for (;;) {
      const changed = this.#changed.promise;
      const found = this.#states.findIndex(wants);
      if (found >= 0) {
        const [state] = this.#states.splice(0, found + 1).slice(-1);
        return state as State;
      }
      if (signal.aborted) throw new Error(`${this.name}: no such report`);
      await Promise.race([changed, once(signal, "abort")]);
    }
  }

  async ended(): Promise<State> {
    return await this.next(({ phase, claim }) => phase === "ended" && claim === this.claim);
  }

  #read(stderr: PassThrough): void {
    let text = "";
    stderr.setEncoding("latin1").on("data", (more: string) => {
      text += more;
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) {
        const [, of] = /^berth2 \d+ state (.*) #end$/.exec(line) ?? [];
        if (of === undefined) continue;
        const [boot = "", nonce = "", claim = "", phase = "", ...how] = of.split(" ");
        this.#states.push({ boot, nonce, claim, phase, how: how.join(" "), atMs: performance.now() });
      }
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
    const path = `/api/v1/namespaces/${NAMESPACE}/pods/${this.name}?gracePeriodSeconds=0`;
    await this.#trial.cluster.api.request("DELETE", path).catch(() => {});
  }
}

function check(isTrue: boolean, what: string, seen: unknown): void {
  if (!isTrue) throw new Error(`${what}: ${JSON.stringify(seen)}`);
}

function told(figures: readonly number[]): string {
  const sorted = figures.toSorted((one, other) => one - other);
  const at = (share: number) => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1);
  return `p50 ${at(0.5)}, p95 ${at(0.95)}, max ${at(1)} ms (${figures.length})`;
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const fromMs = performance.now();
  await action();
  return performance.now() - fromMs;
}

const TRIALS: Readonly<Record<string, (trial: Trial) => Promise<void>>> = {
  async lines(trial) {
    await using container = await Container.start(trial, "lines", ":");
    const hellos: number[] = [];
    for (let i = 0; i < 200; i += 1) hellos.push(await timed(() => container.ask("hello")));
    console.log(`hello to its answer: ${told(hellos)}`);
    const sizeOf = async () => JSON.stringify(await container.pod()).length;
    const before = await sizeOf();
    const [started, ended]: number[][] = [[], []];
    for (let i = 0; i < 500; i += 1) {
      const fromMs = performance.now();
      started?.push((await container.run()).atMs - fromMs);
      ended?.push((await container.ended()).atMs - fromMs);
    }
    console.log(
      `run to started: ${told(started ?? [])}\nrun to ended of a shell that does nothing: ${told(ended ?? [])}`,
    );
    console.log(`messages 2 to 51: ${told(ended?.slice(1, 51) ?? [])}; 451 to 500: ${told(ended?.slice(450) ?? [])}`);
    console.log(`the Pod's object: ${before} bytes before, ${await sizeOf()} after 500 messages`);
    check((await container.restarts()) === 0, "it restarted", await container.pod());
  },

  async stops(trial) {
    await using container = await Container.start(trial, "stops", "trap 'exit 3' TERM; echo up; sleep 1000 & wait");
    const figures: Record<"stop" | "kill", number[]> = { stop: [], kill: [] };
    for (let i = 0; i < 40; i += 1) {
      for (const verb of ["stop", "kill"] as const) {
        await container.run();
        // Long enough for the shell to have its trap.
        await delay(100);
        const fromMs = performance.now();
        await container.ask(verb, container.boot, container.claim);
        const ended = await container.ended();
        const wanted = verb === "stop" ? "exit 3 stop clean -" : "signal 9 kill clean -";
        check(ended.how === wanted, `${verb} did not end it`, ended);
        figures[verb].push(ended.atMs - fromMs);
      }
    }
    console.log(`stop to ended: ${told(figures.stop)}\nkill to ended: ${told(figures.kill)}`);
  },

  async restarts(trial) {
    const { control } = trial.cluster;
    const parts = {
      kubelet: [() => control.stopKubelet("SIGKILL"), () => control.startKubelet()],
      containerd: [() => control.stopContainerd("SIGKILL"), () => control.startContainerd()],
      "API server": [() => control.stopApiServer("SIGKILL"), () => control.startApiServer()],
    } as const;
    await using idle = await Container.start(trial, "restarts-idle", ":");
    await using busy = await Container.start(trial, "restarts-busy", 'sleep "$FOR"; echo words >&2; exit 7');
    for (const [name, [stop, start]] of Object.entries(parts)) {
      const boots = [idle.boot, busy.boot];
      await busy.run("FOR=8");
      await stop();
      await delay(3000);
      await start();
      const [waiting, running] = [await idle.attached(), await busy.attached()];
      check(waiting.boot === boots[0] && running.boot === boots[1], `${name}: another boot`, { waiting, running });
      const ended = running.phase === "ended" ? running : await busy.ended();
      check(ended.how === "exit 7 - clean words%0A", `${name}: the end was not reported`, ended);
      await idle.run();
      await idle.ended();
      console.log(`${name} killed and started again: same boot, idle and running; the end is reported (${ended.how})`);
    }
  },

  async memory(trial) {
    const script = 'echo kept > /workspace/file; tail /dev/zero; echo "$?" >&2; exit 1';
    await using container = await Container.start(trial, "memory", script, {
      resources: { limits: { memory: "64Mi" }, requests: { cpu: "10m" } },
    });
    const { boot } = container;
    await container.run();
    const state = await Promise.race([container.ended(), delay(20_000)]);
    const after = await container.attached();
    const isSame = after.boot === boot;
    console.log(
      `out of memory: ${state ? state.how : "no report"}; ${isSame ? "same boot" : "another boot"}, restarts ${await container.restarts()}`,
    );
    if (isSame) check(after.how.startsWith("oom 1 - clean"), "not told as out of memory", after);
  },

  async deletion(trial) {
    await using container = await Container.start(
      trial,
      "deletion",
      "trap 'sleep 0.3; exit 0' TERM; sleep 1000 & wait",
    );
    await container.run();
    await delay(200);
    const fromMs = performance.now();
    await trial.cluster.api.request("DELETE", `/api/v1/namespaces/${NAMESPACE}/pods/${container.name}`);
    const ended = await container.ended();
    check(ended.how === "exit 0 terminate clean -", "the program was not terminated", ended);
    console.log(`deletion to ended, of a program that saves for 300 ms: ${(ended.atMs - fromMs).toFixed(0)} ms`);
  },

  async left(trial) {
    const script = 'for i in $(seq "$COUNT"); do sleep 1000 & done; exit 5';
    await using container = await Container.start(trial, "left", script, {
      resources: { limits: { memory: "6Gi" }, requests: { cpu: "10m" } },
    });
    for (const count of trial.runtimeClassName ? [300, 2000] : [300, 10_000]) {
      await container.run(`COUNT=${count}`);
      const ended = await container.ended();
      check(ended.how.startsWith("exit 5 - clean"), "not clean", ended);
      const tookMs = await timed(() => container.ask("hello"));
      console.log(`${count} processes left behind: ${ended.how}; the next hello took ${tookMs.toFixed(0)} ms`);
    }
  },

  async limit(trial) {
    const script = "sh -c 'while sleep 1000 & do :; done'; echo full; sleep 1000";
    await using container = await Container.start(trial, "limit", `test "$END" = 1 && exit 5; ${script}`, {
      resources: { limits: { memory: "6Gi" }, requests: { cpu: "10m" } },
    });
    await container.run("END=0");
    await delay(30_000);
    const helloMs = await timed(() => container.ask("hello"));
    const killMs = await timed(async () => {
      await container.ask("kill", container.boot, container.claim);
      await container.ended();
    });
    await container.run("END=1");
    const next = await container.ended();
    check(next.how === "exit 5 - clean -", "the next program did not run", next);
    console.log(
      `at the limit of ${PROCESSES} processes: hello ${helloMs.toFixed(0)} ms, kill to ended ${killMs.toFixed(0)} ms`,
    );
  },

  async killed(trial) {
    // gVisor's processes are not the node's.
    if (trial.runtimeClassName) return;
    const { control } = trial.cluster;
    await using container = await Container.start(
      trial,
      "killed",
      'cat "$FILE" && date > /workspace/file && sleep "$FOR"',
    );
    for (const [i, isRunning] of [false, true].entries()) {
      await container.run(`FOR=0 FILE=${i === 0 ? "/dev/null" : "/workspace/file"}`);
      await container.ended();
      const { boot } = container;
      if (isRunning) await container.run("FOR=1000 FILE=/workspace/file");
      const first = (await control.processes()).find(({ arguments: [program] }) => program === "/berth/berth-init");
      const fromMs = performance.now();
      await control.run("kill", ["-KILL", String(first?.pid)]);
      while ((await container.attached()).boot === boot) await delay(50);
      console.log(`killed from the node: answers again after ${(performance.now() - fromMs).toFixed(0)} ms`);
      check((await container.restarts()) > 0, "no restart", await container.pod());
      await container.run("FOR=0 FILE=/workspace/file");
      check(
        (await container.ended()).how === "exit 0 - clean -",
        "the workspace is gone",
        await container.ask("hello"),
      );
    }
  },

  async connections(trial) {
    const { control } = trial.cluster;
    const programs = ["kube-apiserver", "kubelet", "containerd"];
    const usage = async () => {
      const processes = await control.processes();
      const found = programs.map(
        (name) => processes.find(({ arguments: [path = ""] }) => path.endsWith(`/${name}`))?.pid,
      );
      const { stdout } = await control.run("ps", ["-o", "rss=,cputimes=", "-p", found.join(",")]);
      return stdout
        .trim()
        .split("\n")
        .map((line) => line.trim().split(/\s+/).map(Number));
    };
    await using pods = new AsyncDisposableStack();
    const containers: Container[] = [];
    for (let i = 0; i < 20; i += 1) containers.push(pods.use(await Container.start(trial, `connections-${i}`, ":")));
    for (const [each, before] of [
      [0, 0],
      [50, 0],
      [100, 50],
    ] as const) {
      for (const container of containers) {
        for (let i = before; i < each; i += 1) pods.use(await Container.attachedTo(container));
      }
      await delay(20_000);
      const first = await usage();
      await delay(60_000);
      const last = await usage();
      const told = programs.map((name, i) => {
        const [[, fromSeconds = 0] = [], [rss = 0, seconds = 0] = []] = [first[i], last[i]];
        return `${name} ${Math.round(rss / 1024)} MB, ${seconds - fromSeconds} s of CPU in a minute`;
      });
      console.log(`${20 * (each + 1)} connections: ${told.join("; ")}`);
    }
    const hellos: number[] = [];
    for (let i = 0; i < 200; i += 1)
      hellos.push(await timed(() => containers[i % 20]?.ask("hello") ?? Promise.reject()));
    console.log(`hello beside them: ${told(hellos)}`);
  },

  async inside(trial) {
    // What a program of the same user can do to the first process. Under runc: nothing.
    const files =
      "for f in fd/0 fd/2 mem environ maps; do (exec 3< /proc/1/$f) && echo opened $f; done 2>/dev/null; true";
    const tries = [files, ...["TERM", "HUP", "USR1", "SEGV", "TSTP", "STOP", "KILL"].map((name) => `kill -${name} 1`)];
    for (const [i, script] of tries.entries()) {
      await using container = await Container.start(trial, `inside-${i}`, `(${script}) >&2; sleep 0.2; exit 9`, {
        grace: 1,
      });
      await container.run();
      const ended = await Promise.race([container.ended(), delay(10_000)]);
      const isUnchanged =
        ended?.how === "exit 9 - clean -" && (await Promise.race([container.ask("hello"), delay(5000)]));
      const effect = ended ? ended.how : (await container.restarts()) > 0 ? "it ended" : "it does not answer";
      console.log(`${i === 0 ? "opening its files" : script}: ${isUnchanged ? "no effect" : effect}`);
      check(Boolean(isUnchanged) || Boolean(trial.runtimeClassName), "it was reached", ended);
    }
  },
};

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { gvisor: { type: "boolean" } } });
  const progress = showProgress();
  const { archive } = await buildImages({ progress });
  const gvisor = values.gvisor ?? false;
  await using cluster = await startNodeCluster({
    progress,
    images: [archive],
    gvisor,
    kubelet: { podPidsLimit: PROCESSES },
  });
  progress.clear();
  const labels = { "pod-security.kubernetes.io/enforce": "restricted" };
  await cluster.api.create("/api/v1/namespaces", { metadata: { name: NAMESPACE, labels } });
  const program = (await readFile(await compileStatic(INIT_SOURCE))).toString("base64");
  await cluster.api.create(`/api/v1/namespaces/${NAMESPACE}/configmaps`, {
    metadata: { name: "berth-init" },
    immutable: true,
    binaryData: { "berth-init": program },
  });
  for (const [name, trial] of Object.entries(TRIALS)) {
    if (positionals.length > 0 && !positionals.includes(name)) continue;
    console.log(`\n${name}, ${gvisor ? "gVisor" : "runc"}`);
    await trial({ cluster, runtimeClassName: gvisor ? GVISOR_CLASS : undefined });
  }
}

await main();
