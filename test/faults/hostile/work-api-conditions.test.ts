import { expect, test } from "vitest";
import type { ConditionReason } from "../../../src/api/condition-reasons.ts";
import type { ConditionType } from "../../../src/api/condition-types.ts";
import { findCondition } from "../../../src/api/conditions.ts";
import type { Environment } from "../../../src/api/environment.ts";
import { SECRETS } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { useCluster } from "../../support/cluster.ts";
import { ManyEnvironments } from "../../support/many-environments.ts";
import { SHORT_LEASE } from "../../support/session-life.ts";
import { startWorld, type World } from "../../support/world.ts";
import { hostileActs } from "../../work/hostile-acts.ts";
import { type Act, json, StrictServer, silence } from "../../work/strict-server.ts";
import { PATIENCE_MS } from "../support/patience.ts";
import { MutatingProxy } from "./mutating-proxy.ts";
import { WatchedOperator } from "./watched-operator.ts";
import { callOf, GOOD } from "./wire-samples.ts";

const cluster = useCluster();

/** Refusals in the form that the contract defines. */
const no = (status: number, type: string): Act => json(status, { type: "error", error: { type, message: "no" } });

const REFUSALS: Readonly<Record<string, readonly [act: Act, told: ConditionReason]>> = {
  "no answer": [silence, "Unreachable"],
  "401": [no(401, "authentication_error"), "KeyRejected"],
  "403": [no(403, "permission_error"), "KeyRejected"],
  "404": [no(404, "not_found_error"), "EnvironmentNotFound"],
  "429": [no(429, "rate_limit_error"), "RateLimited"],
  "500": [no(500, "api_error"), "Unreachable"],
  "529": [no(529, "overloaded_error"), "Unreachable"],
};

/**
 * Answers that are no valid response, or server failures. All other `hostileActs` are complete responses that violate
 * the contract.
 */
const NO_ANSWERS: ReadonlySet<string> = new Set([
  "a body shorter than it says",
  "a chunk that breaks off",
  "a chunk of no size",
  "a reset before any answer",
  "a reset within the head",
  "what is no HTTP",
  "a body at a byte now and then",
  "a head at a byte now and then",
  "a switch of protocols",
  "a status of no class",
]);

/** Too large or too late for any answer of this API, whichever limit applies first. */
const ENDLESS: ReadonlySet<string> = new Set([
  "a head without end",
  "informational answers without end",
  "a body without end",
  "a body without end, a byte a chunk",
  "a body of 100 MB",
]);

/** Reasons that the operator may report for an answer: docs/spec/environment.md. */
function reasonsFor(name: string): readonly ConditionReason[] {
  const refusal = REFUSALS[name];
  if (refusal) return [refusal[1]];
  if (ENDLESS.has(name)) return ["BadReply", "Unreachable"];
  return [NO_ANSWERS.has(name) ? "Unreachable" : "BadReply"];
}

const typeOf = (reason: ConditionReason): ConditionType =>
  reason === "KeyRejected" ? "Authenticated" : "QueueReachable";

/** One kind of bad answer, and the Environment that gets it for every call. */
interface Victim {
  readonly answer: string;
  readonly environmentId: string;
  readonly keySecret: string;
  /** The number of calls that got it. */
  struck: number;
}

async function environments({ kube, namespace }: World): Promise<Map<string, Environment>> {
  const { items } = await kube.list(ENVIRONMENTS, { namespace });
  return new Map((items as Environment[]).map((each) => [each.spec.environmentId, each]));
}

/** Which expected report is missing for a victim; undefined if none is. */
function missingReport({ answer }: Victim, environment: Environment | undefined): string | undefined {
  const reasons = reasonsFor(answer);
  const types = [...new Set(reasons.map(typeOf)), "Ready" as const];
  const shown = types.map((type) => findCondition(environment?.status?.conditions, type));
  const isReported = shown.every((is) => is?.status === "False" && reasons.includes(is.reason as ConditionReason));
  return isReported
    ? undefined
    : `${answer}: ${shown.map((is) => `${is?.type}=${is?.status} ${is?.reason}`).join(", ")}`;
}

function isWell(environment: Environment | undefined): boolean {
  const conditions = environment?.status?.conditions;
  return (["Authenticated", "QueueReachable", "Ready"] as const).every(
    (type) => findCondition(conditions, type)?.status === "True",
  );
}

/** Waits until this holds for every victim. The message names those for which it does not. */
async function untilEach(
  world: World,
  what: string,
  victims: readonly Victim[],
  wrong: (victim: Victim, environment: Environment | undefined) => string | undefined,
): Promise<void> {
  let wrongs: (string | undefined)[] = [];
  const holds = async () => {
    const all = await environments(world);
    wrongs = victims.map((victim) => wrong(victim, all.get(victim.environmentId))).filter(Boolean);
    return wrongs.length === 0;
  };
  await world.until(what, holds, PATIENCE_MS).catch(() => expect(wrongs, what).toEqual([]));
}

/** Every kind of bad answer to a call whose valid answer is `body`. */
const actsOn = (body: unknown, elsewhere: string): Record<string, Act> => ({
  ...hostileActs(body, elsewhere),
  ...Object.fromEntries(Object.entries(REFUSALS).map(([name, [act]]) => [name, act])),
});

const ANSWERS = Object.keys(actsOn({}, ""));

test("the lists name existing answers", () => {
  expect([...NO_ANSWERS, ...ENDLESS].filter((name) => !ANSWERS.includes(name))).toEqual([]);
});

/** Makes all Environments of one budget send fewer requests. */
const TOO_MANY = "429";

// Each group runs alone: answers without end delay everything else, and so does a budget that is halved repeatedly.
test.each([
  ["that end", ANSWERS.filter((name) => !ENDLESS.has(name) && name !== TOO_MANY)],
  ["without end", [...ENDLESS]],
  ["that ask for less", [TOO_MANY]],
])(
  "each kind of bad answers %s is reported by its condition for as long as it lasts, and no longer",
  async (_, answers) => {
    await using elsewhere = await StrictServer.start();
    await using world = await startWorld(cluster, { ...SHORT_LEASE, sessions: { warm: 0 } });
    await using proxy = await MutatingProxy.start(world.simulator.url);
    const many = await ManyEnvironments.create(world, answers.length, { baseUrl: proxy.url });
    const victims = [...many.ids.values()].map(
      (environmentId, i): Victim => ({ answer: answers[i] ?? "", environmentId, keySecret: `key-${i}`, struck: 0 }),
    );
    // Created once, because some are megabytes long.
    const acts = new Map(Object.entries(GOOD).map(([call, good]) => [call, actsOn(good, elsewhere.origin)]));
    let isHostile = true;
    proxy.strike = ({ url }) => {
      const victim = victims.find(({ environmentId }) => url.includes(environmentId));
      if (!isHostile || !victim) return undefined;
      victim.struck += 1;
      return { forward: false, answer: () => acts.get(callOf(url))?.[victim.answer] ?? json(500, {}) };
    };
    const flags = [...world.flags(), "--allowed-api-origins", proxy.url];
    await using operator = await WatchedOperator.start(flags, SHORT_LEASE.timeScale, 2_000);

    await untilEach(world, "each is told", victims, missingReport);

    // The operator does not use a rejected key again for a while. All others get another bad answer, and are still
    // reported.
    const asked = victims.filter(({ answer }) => !reasonsFor(answer).includes("KeyRejected"));
    const before = new Map(asked.map(({ answer, struck }) => [answer, struck]));
    const isAskedAgain = ({ answer, struck }: Victim) => struck > (before.get(answer) ?? 0) + 1;
    await world.until("all get another request", () => asked.every(isAskedAgain), PATIENCE_MS);
    const all = await environments(world);
    const isFalse = ({ answer, environmentId }: Victim) =>
      reasonsFor(answer).every(
        (reason) => findCondition(all.get(environmentId)?.status?.conditions, typeOf(reason))?.status === "False",
      );
    expect(victims.filter((victim) => !isFalse(victim)).map(({ answer }) => answer)).toEqual([]);
    // A slow answer may have timed out because all others were slow, and is then reported as such.
    await untilEach(world, "each is still told", victims, missingReport);

    isHostile = false;
    // What a user does to have a rejected key tried again.
    for (const { keySecret } of victims.filter(({ answer }) => reasonsFor(answer).includes("KeyRejected"))) {
      const ref = { namespace: world.namespace, name: keySecret };
      await world.kube.patch(SECRETS, ref, { metadata: { annotations: { "tried-again": "1" } } }, { type: "merge" });
    }
    await untilEach(world, "each is well again", victims, ({ answer }, environment) =>
      isWell(environment) ? undefined : `${answer}: ${JSON.stringify(environment?.status?.conditions)}`,
    );
    await operator.assertWell();
    expect(elsewhere.connections).toBe(0);
    console.log(`hostile inputs: ${answers.length} tried: answers of the Work API, each told by a condition`);
  },
);
