import { describe, expect, test } from "vitest";
import type { Story } from "../../src/explain/story-text.ts";
import { POD_DISRUPTION_BUDGETS, PODS, type Resource } from "../../src/kube/resource.ts";
import { cliRun } from "../support/cli-run.ts";
import { useCluster } from "../support/cluster.ts";
import { SHORT_LEASE, serveOne, untilEnded, untilState } from "../support/session-life.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

const RBAC = "rbac.authorization.k8s.io";
const ROLES: Resource = { ...POD_DISRUPTION_BUDGETS, group: RBAC, plural: "roles", kind: "Role" };
const BINDINGS: Resource = { ...ROLES, plural: "rolebindings", kind: "RoleBinding" };

interface Answer {
  readonly code: number;
  readonly story: Story;
  readonly text: string;
}

/** Runs `berth explain -o json` in a world's namespace. */
async function explain(
  world: World,
  id: string | undefined,
  flags: readonly string[] = [],
  kubeconfig = cluster.kubeconfig,
): Promise<Answer> {
  const where = ["--kubeconfig", kubeconfig, "-n", world.namespace, "--allowed-api-origins", world.simulator.url];
  const { code, out, err } = await cliRun(["explain", id ?? "", ...where, "-o", "json", ...flags]);
  expect(err).toBe("");
  return { code, story: JSON.parse(out), text: out };
}

const whats = ({ story }: Answer) => story.timeline.map(({ what }) => what);

/** All ids of a session, each of which finds it. */
const idsOf = (served: Awaited<ReturnType<typeof serveOne>>) =>
  [served.item.id, served.item.sessionId ?? "", served.pod.metadata.name ?? ""] as const;

describe.concurrent("berth explain", () => {
  test("explains a running session by each of its ids, and prints no secret", async () => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      node: { fates: () => ({ kind: "worker", end: "hang" }) },
    });
    const served = await serveOne(world);
    await untilState(world, served.item, "active");
    await world.until("an Event", () => world.events("SessionStarted").length > 0);
    for (const id of idsOf(served)) {
      const answer = await explain(world, id, ["--check-key"]);
      expect(answer.code).toBe(0);
      expect(answer.story).toMatchObject({
        asked: id,
        sessions: [served.item.sessionId],
        workItems: [served.item.id],
        pods: [served.pod.metadata.name],
        environments: [`${world.namespace}/${world.name}`],
        verdict: { standing: "running", reason: null },
      });
      expect(whats(answer)).toEqual(
        expect.arrayContaining([
          ...["pod-created", "pod-scheduled", "queued", "polled", "acknowledged"],
          ...["container-started", "first-beat", "event", "condition"],
        ]),
      );
      const [claim] = world.claims;
      const secret = Buffer.from(claim?.data?.["work-secret"] ?? "", "base64").toString("utf8");
      expect(secret).not.toBe("");
      for (const hidden of [secret, world.simulator.environmentKey(world.environmentId)]) {
        expect(answer.text).not.toContain(hidden);
      }
    }
  });

  test("explains how a session ended, from its Pod or, after that is deleted, from Events", async () => {
    await using world = await startWorld(cluster, {
      ...SHORT_LEASE,
      sessions: { retainFailedSeconds: 600 },
      node: { fates: () => ({ kind: "worker", end: "oom" }) },
    });
    const served = await serveOne(world);
    await untilEnded(world, served, "OOMKilled");
    const { namespace } = world;
    const name = served.pod.metadata.name ?? "";
    await world.until("the Pod is marked", () =>
      world.pods.some(({ metadata }) => metadata.name === name && metadata.labels?.["berth.dev/phase"] === "ended"),
    );
    const kept = await explain(world, served.item.sessionId);
    expect(kept.story.verdict).toMatchObject({
      standing: "ended",
      reason: "OOMKilled",
      fix: "Raise resources.limits.memory of the session container in the template.",
    });
    expect(whats(kept)).toEqual(expect.arrayContaining(["container-ended", "end-event", "ended"]));
    // Without the key, the Work API is not called, and the output says so.
    expect(kept.story.looked.at(-1)).toMatchObject({ found: null, note: expect.stringContaining("--check-key") });

    await world.kube.delete(PODS, { namespace, name }, { gracePeriodSeconds: 0 });
    await world.until("the Pod is gone", () => !world.pods.some(({ metadata }) => metadata.name === name));
    const gone = await explain(world, served.item.sessionId, ["--check-key"]);
    expect(gone.story).toMatchObject({ pods: [name], verdict: { standing: "ended", reason: "OOMKilled" } });
    expect(whats(gone)).toEqual(expect.arrayContaining(["queued", "stopped", "end-event"]));
    expect(whats(gone)).not.toContain("pod-created");
  });

  test("explains what the Environment of a waiting item lacks, and where it looked for an unknown id", async () => {
    await using world = await startWorld(cluster, { key: false });
    await world.createEnvironment();
    world.startOperator();
    await world.untilCondition("Ready", "KeySecretMissing");
    const item = world.simulator.enqueue(world.environmentId, {});
    const blind = await explain(world, item.id, ["--check-key"]);
    expect(blind).toMatchObject({ code: 1, story: { verdict: { standing: "unknown" } } });
    expect(blind.story.looked).toContainEqual({
      where: `the Work API, for Environment ${world.namespace}/${world.name}`,
      found: null,
      note: expect.stringMatching(/^spec\.api\.keySecretRef\.name: Secret key does not exist in namespace/),
    });

    await world.patchSpec({ paused: true });
    await world.createKey();
    await world.untilCondition("Ready", "Paused");
    const waiting = await explain(world, item.id, ["--check-key"]);
    expect(waiting).toMatchObject({
      code: 0,
      story: { verdict: { standing: "waiting", reason: "Paused", fix: "Set paused: false to serve work again." } },
    });

    const text = await cliRun([
      "explain",
      "session_of_nobody",
      "--kubeconfig",
      cluster.kubeconfig,
      "-n",
      world.namespace,
    ]);
    expect(text.code).toBe(1);
    expect(text.out).toMatch(/session_of_nobody was not found\. Searched: Pods of namespace/);
  });

  test("uses the permissions it has, and names those it would need for the rest", async () => {
    await using world = await startWorld(cluster, { ...SHORT_LEASE, sessions: { retainEndedSeconds: 600 } });
    const served = await serveOne(world);
    await untilEnded(world, served, "Completed");
    const { namespace } = world;
    const user = `viewer-${namespace}`;
    const rules = [{ apiGroups: [""], resources: ["pods"], verbs: ["list"] }];
    await world.kube.create(ROLES, { metadata: { name: "viewer", namespace }, rules } as never);
    const subjects = [{ kind: "User", name: user, apiGroup: RBAC }];
    const roleRef = { apiGroup: RBAC, kind: "Role", name: "viewer" };
    await world.kube.create(BINDINGS, { metadata: { name: "viewer", namespace }, roleRef, subjects } as never);
    const kubeconfig = await cluster.kubeconfigFor(user);
    const answer = await world.until("the viewer sees the marked Pod", async () => {
      const looked = await explain(world, served.item.sessionId, ["--check-key"], kubeconfig);
      return looked.story.verdict.reason === "Completed" && looked;
    });
    expect(answer.code).toBe(0);
    expect(answer.story.looked).toEqual([
      { where: `Pods of namespace ${namespace}`, found: 1, note: null },
      { where: `claims (Secrets) of namespace ${namespace}`, found: null, note: "needs list secrets" },
      { where: `Events of namespace ${namespace}`, found: null, note: "needs list events" },
      { where: `Environments of namespace ${namespace}`, found: null, note: "needs list environments" },
    ]);
  });
});
