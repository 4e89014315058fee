import { describe, expect, test } from "vitest";
import type { Pod } from "../../src/kube/resource.ts";
import { credentialOf, fitsInLine, frameFor, isPreloaded } from "../../src/pods/pod-gate.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { type Json, parsed, sessionsSpec, stored } from "../api/environments.ts";

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
const SHELL = {};
const PRELOAD = { preload: true };
const session = (pod: Pod) => pod.spec.containers[0];
const variables = (pod: Pod) => Object.fromEntries((session(pod)?.env ?? []).map(({ name, ...from }) => [name, from]));

describe("a Pod that waits in a shell", () => {
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
    expect(isPreloaded(pod)).toBe(false);
    expect(credentialOf(pod)).toBe("WorkSecret");
    expect(credentialOf(render({ credential: "EnvironmentKey" }))).toBe("EnvironmentKey");
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
});

describe("a Pod that waits in its program", () => {
  test("leaves the command alone and opens standard input", () => {
    const pod = render(PRELOAD);
    expect(session(pod)).toMatchObject({ ...COMMAND, stdin: true, stdinOnce: false });
    expect(isPreloaded(pod)).toBe(true);
  });
});

describe("a session's line", () => {
  const identity = { workId: "work_1", sessionId: "sess_1", credential: "it's secret" };
  const IDS = "ANTHROPIC_WORK_ID='work_1' ANTHROPIC_SESSION_ID='sess_1'";
  const bodyOf = (pod: Pod) => /^\nberth1 \d+ (.*) #end\n$/.exec(frameFor(pod, identity) ?? "")?.[1];

  test("exports the ids and the credential", () => {
    expect(bodyOf(render(SHELL))).toBe(`export ${IDS} ANTHROPIC_WORK_SECRET='it'\\''s secret'`);
    expect(bodyOf(render({ credential: "EnvironmentKey" }))).toContain("ANTHROPIC_ENVIRONMENT_KEY=");
  });

  test("is a JSON object for a waiting program", () => {
    expect(JSON.parse(bodyOf(render(PRELOAD)) ?? "")).toEqual({
      ANTHROPIC_WORK_ID: "work_1",
      ANTHROPIC_SESSION_ID: "sess_1",
      ANTHROPIC_WORK_SECRET: "it's secret",
    });
  });

  test("fits wherever the credential goes, once it is said to fit", () => {
    const lengths = [10, 3_000, 3_700, 3_800, 3_900, 4_000];
    for (const preload of [false, true]) {
      const fitting = lengths.filter((length) => fitsInLine(preload, { ...identity, credential: "x".repeat(length) }));
      expect(fitting).toContain(3_700);
      expect(fitting).not.toContain(4_000);
      const ways = preload ? [PRELOAD] : [SHELL, { credential: "EnvironmentKey" }];
      for (const way of ways) {
        for (const length of fitting) {
          expect(frameFor(render(way), { ...identity, credential: "x".repeat(length) })).not.toBeNull();
        }
      }
    }
  });

  test("is refused for values that a line can't hold", () => {
    expect(fitsInLine(false, { ...identity, credential: "a\nb" })).toBe(false);
    expect(fitsInLine(false, { ...identity, sessionId: "é" })).toBe(false);
    expect(fitsInLine(true, { ...identity, sessionId: "é\n" })).toBe(true);
  });
});

test("gives each way to wait its own hash", () => {
  const hash = (sessions: Json) => templateOf(sessions, COMMAND).hash;
  const hashes = [SHELL, PRELOAD, { credential: "EnvironmentKey" }].map(hash);
  expect(new Set(hashes).size).toBe(hashes.length);
});
