import { describe, expect, test } from "vitest";
import type { Pod } from "../../src/kube/resource.ts";
import { credentialOf, fitsInLine, frameFor, parkingOf } from "../../src/pods/pod-gate.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";

const NAME = "berth-research-bcdfghjk";
const COMMAND = { command: ["node", "worker.mjs"], args: ["--fast"] };

const templateOf = (sessions: Json, container: Json = {}, podSpec: Json = {}) =>
  sessionTemplate(
    parsed(
      stored(
        sessionsSpec({
          template: { spec: { ...podSpec, containers: [{ name: "worker", image: "worker:1", ...container }] } },
          ...sessions,
        }),
      ),
    ),
  );
const render = (sessions: Json, container: Json = COMMAND, podSpec: Json = {}): Pod =>
  templateOf(sessions, container, podSpec).render(NAME);
const KEY = { parking: "Key" };
const SHELL = { parking: "Shell" };
const PROGRAM = { parking: "Program" };
const session = (pod: Pod) => pod.spec.containers[0];
const variables = (pod: Pod) => Object.fromEntries((session(pod)?.env ?? []).map(({ name, ...from }) => [name, from]));
const fromSecret = (key: string) => ({ valueFrom: { secretKeyRef: { name: NAME, key } } });

describe("parking: Key", () => {
  test("changes only the variables of the session container", () => {
    const pod = render(KEY);
    expect(session(pod)).toMatchObject(COMMAND);
    expect(session(pod)).not.toHaveProperty("stdin");
    expect(pod.spec.volumes).toBeUndefined();
    expect(parkingOf(pod)).toBe("Key");
  });

  test("waits for the credential last, so that all other references are valid before", () => {
    const env = session(render(KEY, { env: [{ name: "OWN", value: "1" }] }))?.env ?? [];
    expect(env.map(({ name }) => name)).toEqual([
      ...["ANTHROPIC_BASE_URL", "ANTHROPIC_ENVIRONMENT_ID", "OWN"],
      ...["ANTHROPIC_WORK_ID", "ANTHROPIC_SESSION_ID", "ANTHROPIC_WORK_SECRET"],
    ]);
    expect(env.at(-1)).toEqual({ name: "ANTHROPIC_WORK_SECRET", ...fromSecret("work-secret") });
  });

  test("gives the environment key its own variable", () => {
    const pod = render({ ...KEY, credential: "EnvironmentKey" });
    expect(session(pod)?.env?.at(-1)).toEqual({ name: "ANTHROPIC_ENVIRONMENT_KEY", ...fromSecret("work-secret") });
    expect(variables(pod)).not.toHaveProperty("ANTHROPIC_WORK_SECRET");
    expect(credentialOf(pod, "worker")).toBe("EnvironmentKey");
  });

  test("ignores another container's variable of that name", () => {
    const pod = render(KEY);
    pod.spec.containers.push({ name: "other", env: [{ name: "ANTHROPIC_ENVIRONMENT_KEY", value: "x" }] });
    expect(credentialOf(pod, "worker")).toBe("WorkSecret");
  });
});

describe("parking: Shell", () => {
  const pod = render(SHELL);

  test("runs the template's command and arguments in a shell that waits, with standard input and no terminal", () => {
    const { command = [], ...container } = session(pod) ?? { name: "" };
    expect(command.slice(0, 2)).toEqual(["/bin/sh", "-c"]);
    expect(command.slice(4)).toEqual(["node", "worker.mjs", "--fast"]);
    expect(container).toMatchObject({ stdin: true, stdinOnce: false });
    expect(container).not.toHaveProperty("args");
    expect(container).not.toHaveProperty("tty");
  });

  test("has nothing in its script that the kubelet expands", () => {
    expect(session(pod)?.command?.[2]).not.toMatch(/\$\(|\$\$/);
  });

  test("says how the Pod waits and which credential it takes", () => {
    expect(parkingOf(pod)).toBe("Shell");
    expect(credentialOf(pod, "worker")).toBe("WorkSecret");
    expect(credentialOf(render({ ...SHELL, credential: "EnvironmentKey" }), "worker")).toBe("EnvironmentKey");
    expect(pod.metadata.annotations?.["berth.dev/about"]).toContain("waits in a shell");
  });

  test("puts nothing into the Pod that differs between sessions", () => {
    expect(Object.keys(variables(pod))).toEqual(["ANTHROPIC_BASE_URL", "ANTHROPIC_ENVIRONMENT_ID"]);
    expect(JSON.stringify(pod.spec)).not.toContain(NAME);
  });

  test("wraps the container that the default-container annotation names", () => {
    const template = {
      metadata: { annotations: { "kubectl.kubernetes.io/default-container": "second" } },
      spec: {
        containers: [
          { name: "first", image: "first:1", command: ["first"] },
          { name: "second", image: "second:1", command: ["second"] },
        ],
      },
    };
    const { containers } = sessionTemplate(parsed(stored(sessionsSpec({ template, ...SHELL })))).render(NAME).spec;
    expect(containers.map(({ command }) => command?.at(-1))).toEqual(["first", "second"]);
    expect(containers.map(({ stdin }) => stdin)).toEqual([undefined, true]);
  });

  test("does not warn about Always, which contacts the registry only once for each Pod", () => {
    const always = templateOf(SHELL, { ...COMMAND, imagePullPolicy: "Always" });
    expect([always.pullsAlways, always.pullsAgain]).toEqual([false, false]);
  });
});

describe("parking: Program", () => {
  test("leaves the command alone and opens standard input", () => {
    const pod = render(PROGRAM);
    expect(session(pod)).toMatchObject({ ...COMMAND, stdin: true, stdinOnce: false });
    expect(parkingOf(pod)).toBe("Program");
  });

  test("needs no command: the image's own entrypoint waits", () => {
    expect(session(render(PROGRAM, {}))).not.toHaveProperty("command");
  });
});

describe("a session's line", () => {
  const identity = { workId: "work_1", sessionId: "sess_1", credential: "it's secret" };
  const IDS = "ANTHROPIC_WORK_ID='work_1' ANTHROPIC_SESSION_ID='sess_1'";
  const bodyOf = (pod: Pod) => /^\nberth1 \d+ (.*) #end\n$/.exec(frameFor(pod, "worker", identity) ?? "")?.[1];

  test("exports the ids and the credential", () => {
    expect(bodyOf(render(SHELL))).toBe(`export ${IDS} ANTHROPIC_WORK_SECRET='it'\\''s secret'`);
    expect(bodyOf(render({ ...SHELL, credential: "EnvironmentKey" }))).toContain("ANTHROPIC_ENVIRONMENT_KEY=");
  });

  test("is a JSON object for a waiting program", () => {
    expect(JSON.parse(bodyOf(render(PROGRAM)) ?? "")).toEqual({
      ANTHROPIC_WORK_ID: "work_1",
      ANTHROPIC_SESSION_ID: "sess_1",
      ANTHROPIC_WORK_SECRET: "it's secret",
    });
  });

  test("fits wherever the credential goes, once it is said to fit", () => {
    const lengths = [10, 3_000, 3_700, 3_800, 3_900, 4_000];
    for (const parking of ["Shell", "Program"] as const) {
      const fitting = lengths.filter((length) => fitsInLine(parking, { ...identity, credential: "x".repeat(length) }));
      expect(fitting).toContain(3_700);
      expect(fitting).not.toContain(4_000);
      const ways = parking === "Shell" ? [SHELL, { ...SHELL, credential: "EnvironmentKey" }] : [PROGRAM];
      for (const way of ways) {
        for (const length of fitting) {
          expect(frameFor(render(way), "worker", { ...identity, credential: "x".repeat(length) })).not.toBeNull();
        }
      }
    }
  });

  test("is refused for values that a line can't hold", () => {
    expect(fitsInLine("Shell", { ...identity, credential: "a\nb" })).toBe(false);
    expect(fitsInLine("Shell", { ...identity, sessionId: "é" })).toBe(false);
    expect(fitsInLine("Program", { ...identity, sessionId: "é\n" })).toBe(true);
  });
});

test("gives each way of parking its own hash", () => {
  const hash = (sessions: Json) => templateOf(sessions, COMMAND).hash;
  const hashes = [KEY, SHELL, PROGRAM, { ...KEY, credential: "EnvironmentKey" }].map(hash);
  expect(new Set(hashes).size).toBe(hashes.length);
});

describe("parking left out", () => {
  const choose = (sessions: Json, container: Json, podSpec: Json = {}) =>
    templateOf(sessions, container, podSpec).parking;
  const KEPT = /sessions start slower with a key$/;

  test("is Shell for a container with a command", () => {
    expect(choose({}, COMMAND).mode).toBe("Shell");
    expect(templateOf({}, COMMAND).hash).toBe(templateOf(SHELL, COMMAND).hash);
  });

  test.each<[string, Json, Json, RegExp]>([
    ["no command", {}, {}, /containers\[0\]\.command is not set/],
    ["a liveness probe", { ...COMMAND, livenessProbe: {} }, {}, /livenessProbe/],
    ["a startup probe", { ...COMMAND, startupProbe: {} }, {}, /startupProbe/],
    ["a hook after the start", { ...COMMAND, lifecycle: { postStart: {} } }, {}, /lifecycle\.postStart/],
    ["a reference to the session", { command: ["x", "$(ANTHROPIC_SESSION_ID)"] }, {}, /command refers to a variable/],
    ["a terminal", { ...COMMAND, tty: true }, {}, /tty is true/],
    ["Windows", COMMAND, { os: { name: "windows" } }, /Windows/],
  ])("is Key with %s, and says why", (_, container, podSpec, why) => {
    const { mode, message } = choose({}, container, podSpec);
    expect(mode).toBe("Key");
    expect(message).toMatch(why);
    expect(message).toMatch(KEPT);
  });

  test("keeps Shell with a readiness probe and a hook before the end", () => {
    expect(choose({}, { ...COMMAND, readinessProbe: {}, lifecycle: { preStop: {} } }).mode).toBe("Shell");
  });

  test("is Key after Shell failed", () => {
    const environment = (sessions: Json) =>
      parsed(stored(sessionsSpec({ template: podTemplate({ containers: [{ name: "w", ...COMMAND }] }), ...sessions })));
    expect(sessionTemplate(environment({}), "no shell").parking).toEqual({
      mode: "Key",
      message: "no shell; sessions start slower with a key",
    });
    expect(sessionTemplate(environment(SHELL), "no shell").parking.mode).toBe("Shell");
  });
});
