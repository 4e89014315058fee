import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Environment, isolated, parseEnvironment, parseForRunning } from "../../src/api/environment.ts";
import { type Json, parsed, podTemplate, problems, sessionsSpec, stored, workersSpec } from "./environments.ts";
import { RULE_CASES } from "./rule-cases.ts";

describe("defaults", () => {
  test("of a sessions Environment match the documentation", () => {
    expect(parsed(stored(sessionsSpec())).spec).toEqual({
      environmentId: "env_1",
      paused: false,
      deletionGraceSeconds: 600,
      api: {
        baseUrl: "https://api.anthropic.com",
        keySecretRef: { name: "key", key: "environment-key" },
        otherPollers: 0,
        budgetGroup: "default",
      },
      network: { policy: "Managed", egress: {} },
      sessions: {
        maxConcurrent: 5,
        warm: 0,
        workspace: { type: "Ephemeral", mountPath: "/workspace", retainSeconds: 604_800 },
        lease: "Worker",
        credential: "WorkSecret",
        prepareTimeoutSeconds: 600,
        firstBeatTimeoutSeconds: 60,
        maxDurationSeconds: 86_400,
        retainEndedSeconds: 600,
        retainFailedSeconds: 3600,
        onPodFailure: "Stop",
        disruption: "Allow",
        template: podTemplate(),
      },
    });
  });

  test("of a workers Environment have the windows of a HorizontalPodAutoscaler, and no pace", () => {
    expect(parsed(stored(workersSpec())).spec.workers).toEqual({
      minReplicas: 0,
      maxReplicas: 5,
      sessionsPerReplica: 1,
      behavior: {
        scaleUp: {
          stabilizationWindowSeconds: 0,
          selectPolicy: "Max",
          policies: [],
        },
        scaleDown: {
          stabilizationWindowSeconds: 300,
          selectPolicy: "Max",
          policies: [],
        },
      },
      template: podTemplate(),
    });
  });

  test("fill the missing fields of a behavior and keep the others", () => {
    const behavior = { scaleDown: { stabilizationWindowSeconds: 5 } };
    const { scaleUp, scaleDown } = parsed(stored(workersSpec({ behavior }))).spec.workers?.behavior ?? {};
    expect(scaleDown).toEqual({ stabilizationWindowSeconds: 5, selectPolicy: "Max", policies: [] });
    expect(scaleUp).toEqual({ stabilizationWindowSeconds: 0, selectPolicy: "Max", policies: [] });
  });

  test("are new objects for each Environment, so that changing one does not affect another", () => {
    const first = parsed(stored(workersSpec())).spec.workers?.behavior.scaleUp.policies;
    first?.push({ type: "Pods", value: 1, periodSeconds: 1 });
    expect(parsed(stored(workersSpec())).spec.workers?.behavior.scaleUp.policies).toEqual([]);
  });
});

describe("rules", () => {
  test.each(RULE_CASES)("$name", ({ refused, accepted, message, field }) => {
    expect(problems(stored(accepted))).toEqual([]);
    expect(problems(stored(refused))).toEqual([expect.stringContaining(`${field}: `)]);
    expect(problems(stored(refused))).toEqual([expect.stringContaining(message)]);
  });

  test.each([
    ["gVisor", "gvisor", "sandboxed"],
    ["Kata", "kata", "kata-qemu"],
  ])("puts the RuntimeClass of isolation %s into the template of either mode", (isolation, usual, named) => {
    const classes = { gVisor: "sandboxed", Kata: "kata-qemu" };
    for (const [spec, mode] of [
      [sessionsSpec({ isolation }), "sessions"],
      [workersSpec({ isolation }), "workers"],
    ] as const) {
      const raw = stored(spec);
      const classOf = (environment: Environment | null) => environment?.spec[mode]?.template.spec.runtimeClassName;
      expect(classOf(parsed(raw))).toBe(usual);
      const result = parseEnvironment(raw, classes);
      expect(classOf(result.ok ? result.environment : null)).toBe(named);
      expect(classOf(isolated(parsed(raw), classes))).toBe(named);
    }
    const running = parseForRunning(stored(sessionsSpec({ isolation, parking: "Shell" })), classes);
    expect(running?.spec.sessions?.template.spec.runtimeClassName).toBe(named);
  });

  test("sets no RuntimeClass without isolation, and keeps the template's", () => {
    expect(parsed(stored(sessionsSpec())).spec.sessions?.template.spec).not.toHaveProperty("runtimeClassName");
    const own = sessionsSpec({ template: podTemplate({ runtimeClassName: "own" }) });
    expect(parsed(stored(own)).spec.sessions?.template.spec.runtimeClassName).toBe("own");
  });

  test.each<[string, Json]>([
    ["a template that can't wait in a shell", sessionsSpec({ parking: "Shell" })],
    ["rules for the network", { ...sessionsSpec(), network: { egress: { cidrs: ["10.0.0.0/8", "none"] } } }],
  ])("has a spec for running sessions despite %s", (_what, spec) => {
    expect(parseEnvironment(stored(spec)).ok).toBe(false);
    expect(parseForRunning(stored(spec))?.spec.sessions?.maxConcurrent).toBe(5);
  });

  test("has none for running sessions with other problems, or without sessions", () => {
    expect(parseForRunning(stored(sessionsSpec({ parking: "Init", warm: -1 })))).toBeNull();
    expect(parseForRunning(stored(workersSpec()))).toBeNull();
  });

  test("refuses a name that is too long for labels, and accepts the longest valid one", () => {
    const named = (name: string) => {
      const object = stored(sessionsSpec());
      return { ...object, metadata: { ...(object.metadata as Json), name } };
    };
    expect(problems(named("a".repeat(46)))).toEqual([]);
    expect(problems(named("a".repeat(47)))).toEqual([expect.stringContaining("metadata.name")]);
  });
});

describe("parking", () => {
  const CONTAINER = "spec.sessions.template.spec.containers[0]";
  const withSession = (sessions: Json, container: Json = {}, podSpec: Json = {}) => {
    const containers = [{ name: "worker", image: "worker:1", command: ["worker"], ...container }];
    return problems(stored(sessionsSpec({ template: { spec: { ...podSpec, containers } }, ...sessions })));
  };
  const NOT_IN_SHELL: [string, Json][] = [
    [`${CONTAINER}.command is not set, and Berth does not know the image's entrypoint`, { command: undefined }],
    [`${CONTAINER}.command is not set, and Berth does not know the image's entrypoint`, { command: [] }],
    [`${CONTAINER}.livenessProbe would run while the container waits for its session`, { livenessProbe: {} }],
    [`${CONTAINER}.startupProbe would run while the container waits for its session`, { startupProbe: {} }],
    [`${CONTAINER}.lifecycle.postStart would run before the session is known`, { lifecycle: { postStart: {} } }],
  ];
  const refersTo = (field: string) =>
    `${CONTAINER}.${field} refers to a variable such as $(ANTHROPIC_SESSION_ID), which is not known when the container starts`;
  const NOT_BY_INPUT: [string, Json, Json?][] = [
    [`${CONTAINER}.tty is true, and the session arrives on standard input`, { tty: true }],
    [`${CONTAINER}.stdin is true, and the session arrives on standard input`, { stdin: true }],
    [refersTo("command"), { command: ["worker", "$(ANTHROPIC_SESSION_ID)"] }],
    [refersTo("args"), { args: ["--item=$(ANTHROPIC_WORK_ID)"] }],
    [refersTo("env"), { env: [{ name: "TOKEN", value: "$(ANTHROPIC_WORK_SECRET)" }] }],
    [refersTo("volumeMounts"), { volumeMounts: [{ name: "v", subPathExpr: "$(ANTHROPIC_SESSION_ID)" }] }],
    ["the Pods run on Windows", {}, { os: { name: "windows" } }],
    ["the Pods run on Windows", {}, { nodeSelector: { "kubernetes.io/os": "windows" } }],
  ];

  test.each([...NOT_IN_SHELL, ...NOT_BY_INPUT])("Shell is refused: %s", (why, container, podSpec) => {
    const refusal = `spec.sessions.parking: Shell is not possible: ${why}; change that, or set parking: Key`;
    expect(withSession({ parking: "Shell" }, container, podSpec)).toEqual([refusal]);
    expect(withSession({}, container, podSpec)).toEqual([]);
    expect(withSession({ parking: "Key" }, container, podSpec)).toEqual([]);
  });

  test.each(NOT_BY_INPUT)("Program is refused: %s", (why, container, podSpec) => {
    const refusal = `spec.sessions.parking: Program is not possible: ${why}; change that, or set parking: Key`;
    expect(withSession({ parking: "Program" }, container, podSpec)).toEqual([refusal]);
  });

  test.each(NOT_IN_SHELL)("Program is accepted although Shell is not: %s", (_, container) => {
    expect(withSession({ parking: "Program" }, container)).toEqual([]);
  });

  test("Shell accepts variables that are known from the start, readiness probes and hooks before the end", () => {
    const container = {
      args: ["$(ANTHROPIC_ENVIRONMENT_ID)", "$(ANTHROPIC_BASE_URL)"],
      readinessProbe: {},
      lifecycle: { preStop: {} },
      tty: false,
    };
    expect(withSession({ parking: "Shell" }, container, { os: { name: "linux" } })).toEqual([]);
  });

  test("names the container of the session, not the first one", () => {
    const template = {
      metadata: { annotations: { "kubectl.kubernetes.io/default-container": "worker" } },
      spec: { containers: [{ name: "proxy", command: ["proxy"] }, { name: "worker" }] },
    };
    expect(problems(stored(sessionsSpec({ template, parking: "Shell" })))).toEqual([
      expect.stringContaining("spec.containers[1].command is not set"),
    ]);
  });
});

describe("bounds", () => {
  const withContainers = (containers: unknown) => sessionsSpec({ template: { spec: { containers } } });
  const container = (name: string) => ({ name, image: "worker:1" });

  test.each([
    ["maxConcurrent 0", sessionsSpec({ maxConcurrent: 0 }), "spec.sessions.maxConcurrent: is too small"],
    [
      "maxConcurrent 1.5",
      sessionsSpec({ maxConcurrent: 1.5 }),
      "spec.sessions.maxConcurrent: has the wrong type; write a value of type int",
    ],
    ["maxConcurrent as text", sessionsSpec({ maxConcurrent: "5" }), "spec.sessions.maxConcurrent: has the wrong type"],
    [
      "a removed field",
      sessionsSpec({}, api({ requestTimeoutSeconds: 10 })),
      "spec.api.requestTimeoutSeconds: removed; the timeout is always 10 s",
    ],
    [
      "a lease of no known kind",
      sessionsSpec({ lease: "worker" }),
      "spec.sessions.lease: must be one of Worker, Operator",
    ],
    ["no containers", withContainers([]), "spec.sessions.template.spec.containers: is too small"],
    [
      "33 containers",
      withContainers(Array.from({ length: 33 }, (_, index) => container(`c${index}`))),
      "spec.sessions.template.spec.containers: is too big: the number of items must be at most 32",
    ],
    [
      "two containers of one name",
      withContainers([container("a"), container("a")]),
      "spec.sessions.template.spec.containers: two containers have the same name",
    ],
    [
      "a container without a name",
      withContainers([{}]),
      "containers[0].name: is required; set it to a value of type string",
    ],
    ["no template", sessionsSpec({ template: undefined }), "spec.sessions.template: is required"],
    [
      "a misspelled field",
      sessionsSpec({ maxConcurent: 3 }),
      "spec.sessions.maxConcurent: unknown field; did you mean maxConcurrent?",
    ],
    ["a field that resembles none", { ...sessionsSpec(), zone: "eu" }, "spec.zone: unknown field; correct its name"],
    [
      "a misspelt spec of the template",
      sessionsSpec({ template: { ...podTemplate(), sepc: {} } }),
      "template.sepc: unknown field",
    ],
    [
      "a drain longer than a day per Pod",
      sessionsSpec({ template: podTemplate({ terminationGracePeriodSeconds: 1e6 }) }),
      "is too big",
    ],
    ["a busy probe without a port", workersSpec({ busyProbe: { httpGet: {} } }), "busyProbe.httpGet.port: is required"],
  ])("refuses %s", (_, spec, problem) => {
    expect(problems(stored(spec))).toEqual([expect.stringContaining(problem)]);
  });

  function api(fields: Json): Json {
    return { api: { keySecretRef: { name: "key" }, ...fields } };
  }
});

describe("parseEnvironment", () => {
  test("describes each of several unknown fields of one object", () => {
    const result = parseEnvironment(stored({ ...sessionsSpec(), pausd: true, zone: "eu" }));
    expect(result.ok ? [] : result.problems).toEqual([
      "spec.pausd: unknown field; did you mean paused?",
      "spec.zone: unknown field; correct its name, remove it, or update Berth",
    ]);
  });

  test("keeps unknown fields of a template, at every level", () => {
    const template = {
      metadata: { labels: { a: "b" }, finalizers: ["example.com/x"] },
      spec: {
        containers: [{ name: "worker", futureField: { deep: [1, null, { x: "y" }] }, env: [{ name: "A", future: 1 }] }],
        futureSpecField: [true],
      },
    };
    expect(parsed(stored(sessionsSpec({ template }))).spec.sessions?.template).toEqual(template);
  });

  test("keeps unknown metadata and unknown fields at the top", () => {
    const object = stored(sessionsSpec(), { future: 1 });
    const metadata = { ...(object.metadata as Json), managedFields: [{ manager: "kubectl" }] };
    expect(parsed({ ...object, metadata })).toMatchObject({ future: 1, metadata });
  });

  test("accepts an Environment whose status is from another version", () => {
    const environment = parsed(stored(sessionsSpec(), { status: { queue: "many", conditions: 3 } }));
    expect(environment.status).toBeUndefined();
  });

  test("accepts a status without what an earlier version did not count", () => {
    const sessions = { warm: 1, preparing: 0, running: 2, stopping: 0, ended: 0 };
    expect(parsed(stored(sessionsSpec(), { status: { sessions } })).status).toEqual({ sessions });
  });

  test("drops only unknown fields of a status", () => {
    const environment = parsed(stored(sessionsSpec(), { status: { observedGeneration: 3, future: true } }));
    expect(environment.status).toEqual({ observedGeneration: 3 });
  });

  test("names a field of a newer version, with the fix", () => {
    expect(problems(stored(sessionsSpec({ snapshots: "Always" })))).toEqual([
      "spec.sessions.snapshots: unknown field; correct its name, remove it, or update Berth",
    ]);
  });

  test("names an object of another kind or version", () => {
    const object = { ...stored(sessionsSpec()), apiVersion: "berth.dev/v9", kind: "Pod" };
    expect(problems(object)).toEqual(["apiVersion: must be berth.dev/v1alpha1", "kind: must be Environment"]);
  });

  test("never quotes a value, which may be a key in the wrong place", () => {
    const key = "sk-ant-oat01-Zq/9zq";
    const everywhere = {
      environmentId: key,
      paused: key,
      deletionGraceSeconds: key,
      api: { baseUrl: key, workspaceId: key, budgetGroup: key, keySecretRef: { name: key, key } },
      sessions: { maxConcurrent: key, lease: key, template: key },
    };
    const found = problems(stored(everywhere));
    expect(found.length).toBeGreaterThan(8);
    expect(found.join("\n")).not.toContain("9zq");
  });

  test("never throws for any JSON, and gives a text for every problem", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const result = parseEnvironment(value);
        if (!result.ok) expect(result.problems.every((problem) => problem.length > 0)).toBe(true);
        expect(result.ok || result.problems.length > 0).toBe(true);
      }),
      { verbose: true },
    );
  });

  test("never throws when any field of a valid object is replaced by any JSON", () => {
    const good = stored(sessionsSpec({ warm: 1 }), { status: { conditions: [] } });
    const paths = pathsOf(good);
    fc.assert(
      fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
        const result = parseEnvironment(replaced(good, path, value));
        expect(result.ok || result.problems.length > 0).toBe(true);
      }),
      { verbose: true, numRuns: 500 },
    );
  });

  test("returns the same object when it parses its own result", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.boolean(),
        fc.dictionary(fc.string(), fc.jsonValue()),
        (max, paused, extra) => {
          const spec = sessionsSpec({ maxConcurrent: max, template: { spec: { ...extra, ...podSpec() } } }, { paused });
          const once = parsed(stored(spec));
          expect(parsed(once)).toEqual(once);
        },
      ),
    );
  });

  const podSpec = () => ({
    ...(podTemplate().spec as Json),
    restartPolicy: "Never",
    activeDeadlineSeconds: undefined,
    terminationGracePeriodSeconds: 30,
    hostNetwork: false,
    hostPID: false,
    hostIPC: false,
  });
});

/** Every path of a JSON object, as lists of keys. */
function pathsOf(value: unknown, path: string[] = []): string[][] {
  if (typeof value !== "object" || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, child]) => pathsOf(child, [...path, key]))];
}

/** Returns a copy with the value at `path` replaced. */
function replaced(value: unknown, path: readonly string[], next: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return next;
  if (Array.isArray(value))
    return value.map((item, index) => (String(index) === key ? replaced(item, rest, next) : item));
  const record = value as Json;
  return { ...record, [key]: replaced(record[key], rest, next) };
}
