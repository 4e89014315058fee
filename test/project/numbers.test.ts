import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { REASONS } from "../../src/api/condition-reasons.ts";
import { environmentSchema } from "../../src/api/crd-manifest.ts";
import { WORKER_GRACE_SECONDS } from "../../src/api/pod-template.ts";
import { DEFAULT_SLEEP_SECONDS } from "../../src/api/sleep-needs.ts";
import type { StructuralSchema } from "../../src/api/structural-schema.ts";
import { windowMs } from "../../src/claims/ack-window.ts";
import { ENDED_BOUNDS } from "../../src/console/ended-sessions.ts";
import { WARNINGS_KEPT } from "../../src/console/seen.ts";
import { MAX_VIEWERS, STUCK_MS } from "../../src/console/viewers.ts";
import { DEFAULT_TIMING, DRAIN_GRACE } from "../../src/core/timing.ts";
import { LEASE_DURATION_MS, RENEW_DEADLINE_MS } from "../../src/election/leader-election.ts";
import { MAX_PENDING, MAX_WRITES } from "../../src/kube/events.ts";
import { UNREAD_MS } from "../../src/observe/http-server.ts";
import { KEEPER_SLACK_MS } from "../../src/pods/sleep-mark.ts";
import { FAILURES_TO_OPEN } from "../../src/pods/starts.ts";
import { MOST_TURNS } from "../../src/pods/turns.ts";
import { parkedMaxAgeMs } from "../../src/pool/parked-age.ts";
import { ALIVE_MS, EARLY_MS, FRESH_MS, LOOKS_PER_SECOND } from "../../src/queue/hints.ts";
import { PAGE_REST_MS } from "../../src/queue/waiting-sessions.ts";
import { COUNTS_EVERY_MS } from "../../src/reconcile/status-writer.ts";
import { WAITING_KEPT_MS } from "../../src/sleep/volume-plan.ts";
import { VOLUME_CREATION_LATENESS } from "../../src/sleep/workspaces.ts";
import { MAX_BODY_BYTES, RATE } from "../../src/webhook/receiver.ts";
import { TOLERANCE_SECONDS } from "../../src/webhook/signature.ts";
import { DEFAULT_BUDGET_LIMITS } from "../../src/work/budget.ts";
import { MAX_RETRY_AFTER_MS } from "../../src/work/errors.ts";
import { PROBE_TIMEOUT_MS } from "../../src/workers/busy-probe.ts";
import { BUSY_COST } from "../../src/workers/busy-watch.ts";
import { VICTIM_COST } from "../../src/workers/shrink.ts";
import { ROOT } from "./lint-gate.ts";

const read = (path: string) => readFile(join(ROOT, path), "utf8");
const t = DEFAULT_TIMING;
const s = (ms: number) => `${ms / 1_000} s`;
const minutes = (ms: number) => ms / 60_000;
const quietMs = t.beatIntervalMs + t.quietMarginMs;

const spec = environmentSchema().properties?.spec?.properties ?? {};
const workers = spec.workers?.properties ?? {};
const sessions = spec.sessions?.properties ?? {};
const scaleDown = workers.behavior?.properties?.scaleDown?.properties ?? {};

/** Sentences with a number from the code. A changed number fails the test of its page. */
const SENTENCES: Record<string, readonly string[]> = {
  "docs/leases.md": [
    `Berth requests ${s(t.desiredTtlMs)}`,
    `a share of one list every ${s(t.observeMs)}`,
    `hasn't changed for ${s(quietMs)}`,
    `heartbeat doesn't change for ${s(quietMs)}`,
    `min(TTL / 2, ${s(t.beatIntervalMs)})`,
    `Without an answer** after ${s(t.requestBoundMs)}`,
    `after ${s(t.assumedTtlMs)} with stock workers`,
  ],
  "docs/security.md": [`doesn't read its answer is disconnected after ${s(UNREAD_MS)}`],
  "docs/workers.md": [
    `for all of the last ${String(scaleDown.stabilizationWindowSeconds?.default)} s`,
    `The operator decides every ${s(t.scaleMs)}`,
    `every ${s(t.statsBusyMs)} while work waits, else every ${t.statsIdleMs / 1_000} to ${s(t.idleMaxMs)}`,
    `every ${s(t.countMs)} while there are workers or waiting work`,
    `can't be read for ${s(t.demandStaleMs)}`,
    `a request every ${s(t.busyProbeMs)}, with a timeout of ${s(PROBE_TIMEOUT_MS)}`,
    `pod-deletion-cost: "${BUSY_COST}"`,
    `\`terminationGracePeriodSeconds\` for this, ${WORKER_GRACE_SECONDS} by default`,
    `with at most ${s(t.drainBoundMs * DRAIN_GRACE)} for their sessions`,
    `a cost of \`${VICTIM_COST}\``,
    `at the latest ${s(t.drainBoundMs)} after \`deletionGraceSeconds\``,
  ],
  "docs/console.md": [
    `without its delay of up to ${s(COUNTS_EVERY_MS)}`,
    `first heartbeat appears up to ${s(t.observeMs)} later`,
    `the last ${WARNINGS_KEPT} Warnings of each Environment`,
    `the last ${ENDED_BOUNDS.perEnvironment} of each Environment that have ended, ${ENDED_BOUNDS.inAll.toLocaleString("en")} in total`,
    `Up to ${MAX_VIEWERS} pages can be open`,
    `is disconnected after ${s(STUCK_MS)}`,
  ],
  "docs/decisions/0025-sessions-that-sleep.md": [
    `A Pod serves ${MOST_TURNS} work items`,
    `the keeper waits ${KEEPER_SLACK_MS === 600_000 ? "ten" : minutes(KEEPER_SLACK_MS)} minutes longer`,
  ],
  "docs/workspaces.md": [
    `after a work item: ${DEFAULT_SLEEP_SECONDS} if you leave it out`,
    `at most ${(sessions.workspace?.properties?.sleepSeconds?.maximum ?? 0) / 86_400} days`,
    `It has served ${MOST_TURNS} work items`,
  ],
  "docs/workspaces/volumes.md": [
    `at most ${WAITING_KEPT_MS / 3_600_000} hours for a work item of the session`,
    `within the ${s(windowMs(t))} in which an offer is valid`,
    `offers it again after ${s(t.othersReclaimMs)}`,
    `after ${s(t.unclaimedParkedMs)}, or after ${minutes(t.unclaimedPreparingMs)} min if it isn't parked yet`,
    `After a crash of the operator, within ${minutes(VOLUME_CREATION_LATENESS * t.lateRecordsMs) === 2 ? "two" : "?"} minutes`,
  ],
  "docs/parking.md": [
    `It checks this every ${minutes(t.policyCheckMs) === 10 ? "ten" : "?"} minutes`,
    `after ${minutes(parkedMaxAgeMs(undefined, "Key")) === 10 ? "ten" : "?"} minutes, before common alerts`,
  ],
  "docs/high-availability.md": [
    `renewed within the last ${s(RENEW_DEADLINE_MS)}`,
    `it stops after ${s(RENEW_DEADLINE_MS)}`,
    `a Lease that has not changed for ${s(LEASE_DURATION_MS)}`,
  ],
  "docs/request-budget.md": [
    `${DEFAULT_BUDGET_LIMITS.initialRate} requests a second at first`,
    `up to ${DEFAULT_BUDGET_LIMITS.maxRate}.`,
    `for ${MAX_RETRY_AFTER_MS === 300_000 ? "five" : "?"} minutes at most`,
    `never lower the rate below ${DEFAULT_BUDGET_LIMITS.initialRate} requests a second`,
    `For ${s(t.idleAfterMs)} after the last item`,
    `and at most ${s(t.idleMaxMs)}.`,
    `at most ${60_000 / PAGE_REST_MS} pages a minute`,
    `${s(t.pollIdleGapMs)} for polls and ${s(t.statsIdleMs)} for statistics`,
    // With a jitter of a tenth.
    `**no later than ${s(t.idleMaxMs * 1.1)}**`,
  ],
  "docs/webhooks.md": [
    `polls every ${minutes(t.hintedIdleMs) === 5 ? "five" : "?"} minutes`,
    `at most ${s(FRESH_MS)} before Berth noticed the item, or ${s(FRESH_MS)} after`,
    `no webhook of any kind came for ${minutes(ALIVE_MS) / 60} hours`,
    `${LOOKS_PER_SECOND === 10 ? "ten" : "?"} at once, then ten a second`,
    `again ${s(EARLY_MS)} after the webhook`,
    `${RATE.perSecond} requests a second, with bursts of ${RATE.burst.toLocaleString("en")}`,
    // With a jitter of a tenth.
    `no later than ${minutes(t.hintedIdleMs * 1.1)} minutes after it came`,
    `more than ${TOLERANCE_SECONDS / 60} minutes old`,
    `${MAX_BODY_BYTES / 1_024} KiB`,
    `one try of ${s(t.passTimeoutMs)}`,
    `each with up to ${LOOKS_PER_SECOND === 10 ? "ten" : "?"} checks a second`,
  ],
  "docs/status.md": [
    `at most every ${s(COUNTS_EVERY_MS)}`,
    `up to ${MAX_WRITES} namespaces at once`,
    `At most ${MAX_PENDING.toLocaleString("en")} Events wait`,
  ],
  "docs/troubleshooting.md": [
    `${s(t.keyRetryMs)} while there is no good key; ${s(t.keyRefreshMs)} while there is one`,
    `| ${minutes(t.templateRetryMaxMs)} minute at most |`,
    `with \`parking\` left out | ${minutes(t.policyCheckMs)} minutes at most |`,
    `good keys | ${minutes(t.rejectedKeyRetryMs)} minutes at most`,
    `| ${minutes(t.prepareBackoffMaxMs)} minutes at most; ${s(t.prepareBackoffBaseMs)} after the first refusal`,
    `| ${s(t.retryMaxMs)} at most; longer if it sent \`Retry-After\` |`,
    `| an environment that the Work API did not know | ${s(t.notFoundPauseMs)} |`,
    `after ${minutes(t.probeFirstMs)}, 2, 4 ... ${minutes(t.probeMaxMs)} minutes`,
  ],
  "docs/troubleshooting/KeyRejected.md": [
    `a good key again every ${s(t.keyRefreshMs)}`,
    `tries the key again within ${s(t.keyRetryMs)}`,
  ],
  "docs/troubleshooting/StartsFailing.md": [
    `after ${minutes(t.probeFirstMs)}, 2, 4 ... ${minutes(t.probeMaxMs)} minutes`,
    `given up after ${s(t.stepPatienceMs)}`,
  ],
  "docs/troubleshooting/CredentialMissing.md": [
    `after ${minutes(t.probeFirstMs)}, 2, 4 ... ${minutes(t.probeMaxMs)} minutes`,
  ],
  "docs/troubleshooting/Deleting.md": [`at most ${s(t.drainBoundMs)} after that`],
  "docs/troubleshooting/NothingStarts.md": [
    `given up after ${s(t.stepPatienceMs)}`,
    `at most ${s(t.retryMaxMs)} apart`,
    `within ${t.requestBoundMs} ms`,
  ],
  "docs/troubleshooting/lost-files.md": [`a Pod serves ${MOST_TURNS} work items at most`],
  "docs/autoscaling.md": [`stay for ${minutes(t.warmScaleDownMs)} minutes`],
  "docs/multi-cluster.md": [`at most ${s(t.desiredTtlMs)} after the last heartbeat`],
  "docs/quick-start.md": [
    `\`deletionGraceSeconds\` (${spec.deletionGraceSeconds?.default} unless set)`,
    `another message within ${DEFAULT_SLEEP_SECONDS === 1_800 ? "half an hour" : "?"}`,
  ],
  "docs/how-it-works.md": [`three sessions fail`],
  "docs/decisions/0007-kept-leases.md": [`\`desired_ttl_seconds\` ${t.desiredTtlMs / 1_000}`],
};

describe.each(Object.entries(SENTENCES))("%s", (page, sentences) => {
  test.each(sentences)("contains the number from the code: %s", async (sentence) => {
    expect(await read(page)).toContain(sentence);
  });
});

test("reasons contain the bound of a deletion and the pause of a rejected key, and starts fail after three", () => {
  expect(REASONS.Deleting.fix).toContain(`${s(t.drainBoundMs)} after deletionGraceSeconds`);
  expect(REASONS.KeyRejected.fix).toContain(`within ${minutes(t.rejectedKeyRetryMs)} minutes`);
  expect(FAILURES_TO_OPEN, "docs/decisions/0003 and 0005, docs/metrics.md and the troubleshooting say three").toBe(3);
});

/** Defaults by field name, for names that occur once. */
function defaultsByName(): Map<string, unknown> {
  const found = new Map<string, unknown[]>();
  const visit = (properties: Record<string, StructuralSchema>) => {
    for (const [name, schema] of Object.entries(properties)) {
      if (schema.default !== undefined) found.set(name, [...(found.get(name) ?? []), schema.default]);
      visit(schema.properties ?? {});
    }
  };
  visit(spec);
  return new Map([...found].filter(([, values]) => values.length === 1).map(([name, [value]]) => [name, value]));
}

test.each(["README.md", "CHANGELOG.md", "docs/leases.md", "docs/session-pods.md", "docs/workers.md"])(
  "%s names only real defaults",
  async (page) => {
    const defaults = defaultsByName();
    const claimed = [...(await read(page)).matchAll(/`(\w+): (\w+)`(?: \(default\)|, the default)/g)];
    for (const [text, field = "", value] of claimed) expect(String(defaults.get(field)), text).toBe(value);
  },
);

test("examples/environments/workers.yaml has the defaults that it names", async () => {
  const { spec: example } = parse(await read("examples/environments/workers.yaml")) as {
    spec: { workers: Record<string, unknown> };
  };
  expect(example.workers).toMatchObject({
    minReplicas: workers.minReplicas?.default,
    sessionsPerReplica: workers.sessionsPerReplica?.default,
    behavior: { scaleDown: { stabilizationWindowSeconds: scaleDown.stabilizationWindowSeconds?.default } },
  });
});
