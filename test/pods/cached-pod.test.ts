import { describe, expect, test } from "vitest";
import * as names from "../../src/api/names.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { cachedPod } from "../../src/pods/cached-pod.ts";
import { readFinished } from "../../src/pods/finished.ts";
import { assignedAtMs, credentialOf, parkingOf } from "../../src/pods/pod-gate.ts";
import { readPodState, sessionContainerName } from "../../src/pods/pod-state.ts";
import {
  endedTurn,
  hasOpenTurn,
  hasRerunTurn,
  isWaitingTurnDead,
  livesOn,
  newestTurn,
  slotOf,
  turnContainerId,
} from "../../src/pods/turns.ts";
import { freePodOf } from "../../src/pool/free-pods.ts";
import { crashLoop } from "../../src/workers/verdicts.ts";
import { readWorkerPod } from "../../src/workers/worker-pod.ts";
import { podAt, SEQUENCE_NAMES, sequence } from "../testbed/node/recorded-sequences.ts";
import { type TurnsPod, turnsPod } from "./turn-pods.ts";

const NOTHING_MORE = { capabilities: [] };
/** Later than every recording. */
const NOW_MS = Date.parse("2030-01-01T00:00:00Z");

describe("a cached Pod", () => {
  test.each(SEQUENCE_NAMES)("gives the loops the same answers as the full Pod: %s", (name) => {
    const recorded = sequence(name);
    for (const step of recorded.steps) {
      const pod = podAt(recorded, step);
      const cached = cachedPod(pod);
      expect(readPodState(cached)).toEqual(readPodState(pod));
      const { pod: _cached, ...finished } = readFinished(cached) ?? {};
      const { pod: _whole, ...wholly } = readFinished(pod) ?? {};
      expect(finished).toEqual(wholly);
      expect(freePodOf(cached, "stays", NOTHING_MORE)).toEqual(freePodOf(pod, "stays", NOTHING_MORE));
      expect(crashLoop(cached, NOW_MS)).toEqual(crashLoop(pod, NOW_MS));
      expect(readWorkerPod(cached)).toEqual(readWorkerPod(pod));
      expect(sessionContainerName(cached)).toBe(sessionContainerName(pod));
      expect(parkingOf(cached)).toBe(parkingOf(pod));
      expect(assignedAtMs(cached)).toBe(assignedAtMs(pod));
      expect(credentialOf(cached, sessionContainerName(cached))).toBe(credentialOf(pod, sessionContainerName(pod)));
    }
  });

  describe("with turns", () => {
    const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };
    const ENDED = { terminated: { exitCode: 0, reason: "Completed", finishedAt: "2030-01-01T00:00:00Z" } };
    const cases: [string, TurnsPod][] = [
      ["that waits for its first turn", {}],
      ["that is free", { turns: { 1: RUNNING } }],
      ["that runs its tenth turn", { phase: "running", ended: 9, turns: { 9: ENDED, 10: RUNNING } }],
      ["that sleeps", { phase: "sleeping", ended: 2, turns: { 1: ENDED, 2: ENDED, 3: RUNNING } }],
      ["whose turn just ended", { phase: "running", ended: 1, turns: { 1: ENDED, 2: ENDED } }],
      ["whose first turn runs again", { phase: "sleeping", ended: 2, turns: { 1: RUNNING, 2: ENDED, 3: RUNNING } }],
      [
        "whose turn runs in another container",
        { phase: "running", turns: { 1: RUNNING }, ids: { 1: "containerd://b" }, claimedIn: "containerd://a" },
      ],
      ["whose keeper has ended", { phase: "running", turns: { 1: RUNNING }, keeper: ENDED }],
      ["with a debug container", { turns: { 1: RUNNING }, others: { debugger: RUNNING } }],
    ];

    test.each(cases)("gives the loops the same answers as the full Pod %s", (_, of) => {
      const read = (pod: Pod) => ({
        ...{ state: readPodState(pod), newest: newestTurn(pod), open: hasOpenTurn(pod), slot: slotOf(pod) },
        ...{ rerun: hasRerunTurn(pod), dead: isWaitingTurnDead(pod), lives: livesOn(pod, newestTurn(pod)) },
        last: readPodState(pod, endedTurn(pod)),
        id: turnContainerId(pod, newestTurn(pod)),
      });
      const pod = turnsPod({ annotations: { "berth.dev/assigned-at": "2030-01-01T00:00:00Z" }, ...of });
      expect(read(cachedPod(pod))).toEqual(read(pod));
    });

    test("keeps the newest of its turns, and of their statuses those from the last end on", () => {
      const turns = Object.fromEntries(Array.from({ length: 99 }, (_, n) => [n + 1, ENDED]));
      const { spec, status } = cachedPod(turnsPod({ phase: "sleeping", ended: 99, turns: { ...turns, 100: RUNNING } }));
      expect(spec.ephemeralContainers).toEqual([{ name: "berth-turn-100" }]);
      expect(status?.ephemeralContainerStatuses?.map(({ name }) => name)).toEqual(["berth-turn-99", "berth-turn-100"]);
    });
  });

  test("keeps all of Berth's labels and annotations except those for people", () => {
    const all = Object.entries(names).flatMap(([key, value]) =>
      /^(LABEL|ANNOTATION)_/.test(key) ? [[key, String(value)] as const] : [],
    );
    const of = (prefix: string) =>
      Object.fromEntries(all.flatMap(([key, name]) => (key.startsWith(prefix) ? [[name, "x"]] : [])));
    const pod = { metadata: { labels: of("LABEL"), annotations: of("ANNOTATION") }, spec: { containers: [] } } as Pod;
    const { labels = {}, annotations = {} } = cachedPod(pod).metadata;
    const gone = (kept: object, whole: object) => Object.keys(whole).filter((name) => !Object.hasOwn(kept, name));
    expect(gone(labels, of("LABEL"))).toEqual([names.LABEL_MANAGED_BY, names.LABEL_NAME, names.LABEL_PART_OF]);
    expect(gone(annotations, of("ANNOTATION")).sort()).toEqual(
      [
        names.ANNOTATION_ABOUT,
        names.ANNOTATION_DEADLINE,
        names.ANNOTATION_DEFAULT_CONTAINER,
        names.ANNOTATION_TURN_SCRIPT,
        // On Environments and volumes.
        names.ANNOTATION_RELEASES,
        names.ANNOTATION_ADOPTED_AT,
        names.ANNOTATION_LAST_USED,
        names.ANNOTATION_UNASSIGNED,
      ].sort(),
    );
  });

  test("is small, whatever the Pod contains", () => {
    const much = "x".repeat(200_000);
    const many = (of: (i: number) => object) => Array.from({ length: 5_000 }, (_, i) => of(i));
    const words = Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`some.example/${i}`, "x".repeat(60)]));
    const pod = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        name: "large",
        namespace: "agents",
        labels: { ...words, [names.LABEL_ROLE]: "session" },
        annotations: { ...words, [names.ANNOTATION_ABOUT]: much, other: much },
        finalizers: many((i) => ({ i })),
        ownerReferences: many((i) => ({ apiVersion: "v1", kind: "Secret", name: `s${i}`, uid: `${i}` })),
        managedFields: many((i) => ({ i })),
      },
      spec: {
        containers: many((i) => ({ name: `c${i}`, image: much, env: [{ name: "A", value: much }] })),
        initContainers: many((i) => ({ name: `i${i}`, args: [much] })),
        volumes: many((i) => ({ name: `v${i}` })),
        tolerations: many((i) => ({ key: `k${i}`, operator: "Exists" })),
      },
    } as unknown as Pod;
    expect(JSON.stringify(cachedPod(pod)).length).toBeLessThan(20_000);
  });

  test("shares equal values with other Pods, however many sessions come and go", () => {
    const owner = { apiVersion: "berth.dev/v1alpha1", kind: "Environment", name: "e", uid: "u", controller: true };
    const podOf = (i: number) =>
      cachedPod({
        metadata: {
          name: `pod-${i}`,
          labels: { [names.LABEL_WORK_ID]: `work_${i}`, [names.LABEL_SESSION_ID]: `session_${i}` },
          annotations: {
            [names.ANNOTATION_WORK_ID]: `work_${i}`,
            [names.ANNOTATION_SESSION_ID]: `session_${i}`,
            [names.ANNOTATION_ENDED_AT]: new Date(i * 1_000).toISOString(),
          },
          ownerReferences: [owner],
        },
        spec: { containers: [{ name: "worker" }] },
        status: {
          phase: "Pending",
          conditions: [
            { type: "PodScheduled", status: "True", lastTransitionTime: new Date(i * 1_000).toISOString() },
          ] as const,
        },
      } as unknown as Pod);
    const first = podOf(0);
    for (let i = 1; i < 5_000; i += 1) podOf(i);
    const last = podOf(5_000);
    expect(last.metadata.ownerReferences).toEqual([owner]);
    expect(last.metadata.ownerReferences).toBe(first.metadata.ownerReferences);
    expect(last.spec.containers).toBe(first.spec.containers);
    expect(last.metadata.labels).toEqual({
      [names.LABEL_WORK_ID]: "work_5000",
      [names.LABEL_SESSION_ID]: "session_5000",
    });
  });
});
