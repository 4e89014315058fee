import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { SESSION_POINTS } from "../../src/protocol/points.ts";
import { RECONCILE_POINTS } from "../../src/reconcile/reconciler-options.ts";
import { WORKERS_POINTS } from "../../src/workers/context.ts";
import { type CrashCase, chosen, SESSION_CASES } from "../faults/crash-points/support/cases.ts";
import { leaseOf, scenarioOf } from "../faults/crash-points/support/scenarios.ts";
import { WORKERS_CASES } from "../faults/crash-points/support/workers-scenarios.ts";
import { ROOT } from "./lint-gate.ts";

const ALL: Record<string, string> = { ...SESSION_POINTS, ...WORKERS_POINTS, ...RECONCILE_POINTS };
const POINTS = Object.entries(ALL);
const CASES = [...SESSION_CASES, ...WORKERS_CASES];

/** A decision changes only memory: a death there equals a death after the previous request, which has a case. */
const isDecision = (what: string) => what.startsWith("decision:");

/** A read changes nothing: a death at any moment of it has the same result. */
const isRead = (what: string) => /^(reads|looks|counts) |dry run/.test(what);

/** The sender of the heartbeats in `sessions` mode, or the other mode. */
const KINDS = ["Worker", "Operator", "workers"] as const;
type Kind = (typeof KINDS)[number];

/** Points that only one mode has. Points of reconciling and of the finalizer belong to both. */
const OF_MODE = { workers: Object.keys(WORKERS_POINTS), sessions: Object.keys(SESSION_POINTS) };
const OF_BOTH_MODES = /^(?:environment|reconcile|policy)\./;

/** Points that this lease never reaches, each with the reason. */
const NEVER: Readonly<Record<Kind, Readonly<Record<string, string>>>> = {
  Worker: {
    "session.take": "the worker takes the lease",
    "session.beat": "and heartbeats",
    "session.shorten": "and a lease that the operator never had is not let go, but lapses",
  },
  Operator: { "sweep.list": "the answers to the operator's own heartbeats show what happens to the item" },
  workers: {
    "reconcile.check-attach": "workers wait for no session",
    "reconcile.check-turns": "and do not sleep",
  },
};

const OF_KIND = {
  ...Object.groupBy(SESSION_CASES, ({ scenario, lease }) => leaseOf(scenarioOf(scenario, lease))),
  workers: WORKERS_CASES,
};

function reasonAgainst(point: string, kind: Kind): string | undefined {
  const other = kind === "workers" ? OF_MODE.sessions : OF_MODE.workers;
  if (other.includes(point) && !OF_BOTH_MODES.test(point)) return "a point of the other mode";
  return NEVER[kind]?.[point];
}

describe("crash points", () => {
  const requests = POINTS.filter(([, what]) => !isDecision(what));
  test.each(KINDS.flatMap((kind) => requests.map(([point, what]) => [point, kind, what] as const)))(
    "%s has its deaths, %s: %s",
    (point, kind, what) => {
      const cases: readonly CrashCase<string>[] = OF_KIND[kind] ?? [];
      const phases = cases.filter(({ death }) => death.point === point).map(({ death }) => death.phase);
      const wanted = isRead(what) ? ["after"] : ["before", "sent", "after"];
      if (reasonAgainst(point, kind) !== undefined) expect(phases).toEqual([]);
      else expect(phases).toEqual(expect.arrayContaining(wanted));
    },
  );

  test("every death is at an existing point", () => {
    expect(CASES.map(({ death }) => death.point).filter((point) => !Object.hasOwn(ALL, point))).toEqual([]);
  });

  test("a sample has one death of each request, one with each lease for a claim's writes, and any six seeds in a row cover all", () => {
    const samples = [7, 8, 9, 10, 11, 12].map((seed) => chosen(SESSION_CASES, { sample: true, seed }));
    const requests = (cases: typeof SESSION_CASES) =>
      new Set(cases.map(({ scenario, death: { point, asks } }) => JSON.stringify([scenario, point, asks])));
    const touches = (cases: typeof SESSION_CASES) =>
      cases.filter(({ death: { point }, scenario }) => point === "session.touch" && scenario === "served");
    for (const sample of samples) {
      expect(requests(sample)).toEqual(requests(SESSION_CASES));
      expect(touches(sample).map(({ lease }) => lease)).toEqual([undefined, "Operator"]);
    }
    expect(new Set(samples.flat())).toEqual(new Set(SESSION_CASES));
    expect(chosen(SESSION_CASES, { sample: false, seed: 7 })).toBe(SESSION_CASES);
  });

  test.each(["Worker", "Operator"] as const)("a stop dies with and without force, lease: %s", (lease) => {
    const stops = (OF_KIND[lease] ?? []).filter(({ death }) => death.point === "session.stop");
    expect(new Set(stops.map(({ death }) => death.asks?.["force"]))).toEqual(new Set([true, false]));
  });
});

/** A request to one of the two APIs. Data from watches does not count, since the loops send no request for it. */
const REQUEST =
  /\b(?:kube|#kube)\.(?:get|list|listAll|create|patch|replace|delete)\(|\bwork\([^()]*\)\.\w+\(|\bwork\.poll\(/g;

/** Characters around a request that must contain the call of its point, or the function passed to the point. */
const CALL_REACH = 420;

/** Requests without their own point, each with the reason. */
const EXEMPT: Readonly<Record<string, string>> = {
  "src/sessions/item-observer.ts": "session.look and sweep.list are around whole walks",
  "src/pods/node-events.ts": "prepare.read-events and workers.read-events surround its request",
  "src/claims/claim-lists.ts": "recover.list and recover.list-late surround its requests",
  "src/reconcile/key-keeper.ts": "reconcile.read-key is around the whole reading",
  "src/reconcile/template-check.ts": "reconcile.check-template is around the whole check",
};

/** Rooms whose code sends requests for an Environment. */
const LOOPS = ["pods", "queue", "claims", "sleep", "pool", "sessions", "workers", "reconcile"];

async function sources(room: string): Promise<string[]> {
  const names = await readdir(join(ROOT, "src", room));
  return names.filter((name) => name.endsWith(".ts")).map((name) => `src/${room}/${name}`);
}

test("every request of the loops goes through a point", async () => {
  const files = (await Promise.all(LOOPS.map(sources))).flat();
  const bare: string[] = [];
  for (const file of files) {
    if (file in EXEMPT) continue;
    const text = await readFile(join(ROOT, file), "utf8");
    for (const { index, 0: call } of text.matchAll(REQUEST)) {
      const around = text.slice(Math.max(0, index - CALL_REACH), index + CALL_REACH);
      if (!/points\s*\.?\s*run\(|points\n\s*\.run\(/.test(around)) bare.push(`${file}: ${call}`);
    }
  }
  expect(bare).toEqual([]);
});

test("the code uses every name in the lists", async () => {
  const files = (await Promise.all(LOOPS.map(sources))).flat();
  const code = await Promise.all(
    files.filter((file) => !file.endsWith("/points.ts")).map((file) => readFile(join(ROOT, file), "utf8")),
  );
  const isUsed = (name: string) => code.some((text) => text.includes(name));
  // Some names are composed: of the deleter or the kind of object, and of the request.
  const composed = (point: string) => [`\${by}.${point.split(".")[1]}`, `${point.split(".")[0]}.\${act}`];
  const unused = Object.keys(ALL).filter(
    (point) => !isUsed(`"${point}"`) && !composed(point).some((name) => isUsed(`\`${name}\``)),
  );
  expect(unused).toEqual([]);
});
