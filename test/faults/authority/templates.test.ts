import { afterAll, describe, expect, test } from "vitest";
import type { Environment } from "../../../src/api/environment.ts";
import { DEPLOYMENTS, type KubeObject } from "../../../src/kube/resource.ts";
import { needsOf, POLICY_RULES } from "../../../src/policy/policy-rules.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { TEMPLATE_CASES, templateOf } from "../../policy/template-cases.ts";
import { useCluster } from "../../support/cluster.ts";
import { startWorld } from "../../support/world.ts";
import { installAdmissionPolicy } from "./admission-policy.ts";
import { createWith, environmentWith, type Json, MODES, type Mode, refusalOf, untilEnforced } from "./environments.ts";

const cluster = useCluster();

const ATTEMPTS = TEMPLATE_CASES.flatMap((each, index) =>
  MODES.map((mode) => ({ ...each, mode, environment: `${mode}-${index}` })),
);
const ESCALATIONS = ATTEMPTS.filter(({ needs }) => needs.length > 0);

/** Escalations that were refused; each is tried on the admission policy and on the operator. */
let refused = 0;
afterAll(() => console.log(`escalations refused: ${refused} of ${2 * ESCALATIONS.length}`));

const privileged = templateOf({ container: { securityContext: { privileged: true } } });

describe("a template that exceeds the Pod policy", () => {
  test("is refused at admission in both modes, and no other template is", async () => {
    await using world = await startWorld(cluster);
    await using _policy = await installAdmissionPolicy(cluster.api, world.namespace, [world.simulator.url]);
    await untilEnforced(world, environmentWith(world, "probe", "sessions", privileged));
    const wrong: string[] = [];
    for (const { name, mode, needs, environment, ...parts } of ATTEMPTS) {
      const words = await refusalOf(world, environmentWith(world, environment, mode, templateOf(parts)));
      const expected = needs.length > 0;
      const values = needs.map((word) => `podPolicy.${word.split("=")[0]}`);
      const good = expected
        ? words?.includes(`spec.${mode}.template: not allowed: `) && values.some((value) => words.includes(value))
        : words === null;
      if (!good) wrong.push(`${mode}, ${name}: ${words}`);
      else if (expected) refused += 1;
    }
    expect(wrong).toEqual([]);
  });

  test("is refused at admission with all that is wrong in one message", async () => {
    await using world = await startWorld(cluster);
    await using _policy = await installAdmissionPolicy(cluster.api, world.namespace, [world.simulator.url]);
    await untilEnforced(world, environmentWith(world, "probe", "sessions", privileged));
    const template = templateOf({
      pod: { hostPID: true, priorityClassName: "high" },
      container: { securityContext: { capabilities: { add: ["NET_ADMIN"] } } },
    });
    const { spec, ...rest } = environmentWith(world, "several", "sessions", template) as KubeObject & { spec: Json };
    const api = { baseUrl: "http://elsewhere.example", keySecretRef: { name: "key" } };
    const words = await refusalOf(world, { ...rest, spec: { ...spec, api } });
    const [, message] = /denied request: (.*)$/.exec(words ?? "") ?? [];
    expect(message).toBe(
      `spec.api.baseUrl: the operator may not send keys to http://elsewhere.example (allowed: ${world.simulator.url}); correct it, or add it to the chart's allowedApiOrigins. ` +
        "spec.sessions.template: not allowed: capabilities that containers add (podPolicy.capabilities=[]); " +
        `${POLICY_RULES.hostNamespaces.about} (podPolicy.hostNamespaces=[]); priority classes (podPolicy.priorityClasses=[]); ` +
        "remove it, or allow it with the chart's podPolicy.",
    );
  });

  test("is refused by the operator if it was stored, and creates no objects", async () => {
    await using world = await startWorld(cluster, { timeScale: 1 });
    const named = new Map(ATTEMPTS.map((each) => [each.environment, each]));
    for (const { mode, environment, ...parts } of ATTEMPTS) {
      await createWith(world, environment, mode, templateOf(parts));
    }
    const operator = world.startOperator();
    const judged = await world.until(
      "all templates are judged",
      async () => {
        const { items } = await world.kube.listAll(ENVIRONMENTS, { namespace: world.namespace });
        const all = items.map((item) => ({ name: item.metadata.name ?? "", condition: accepted(item as never) }));
        return all.every(({ condition }) => condition) && all;
      },
      PATIENCE_MS,
    );
    const wrong: string[] = [];
    for (const { name, condition } of judged) {
      const attempt = named.get(name);
      if (!attempt || !condition) throw new Error(`${name} has no attempt or condition`);
      const expected = attempt.needs.length > 0;
      const says = condition.reason === "TemplateForbidden" && condition.message.includes(`${attempt.field}`);
      if (says !== expected) wrong.push(`${attempt.mode}, ${attempt.name}: ${condition.reason} ${condition.message}`);
      else if (expected) refused += 1;
    }
    expect(wrong).toEqual([]);

    // The operator creates Pods of accepted templates, and these contain nothing forbidden.
    const makers = judged.filter(({ condition }) => condition?.status === "True").map(({ name }) => name);
    expect(makers.length).toBeGreaterThan(MODES.length);
    const owners = () => new Set(world.pods.map(({ metadata }) => metadata.labels?.["berth.dev/environment"] ?? ""));
    await world.until("the others have their Pods", () => makers.every((name) => owners().has(name)), PATIENCE_MS);
    expect([...owners()].sort()).toEqual(makers.sort());
    for (const pod of world.pods) expect(needsOf(pod), pod.metadata.name).toEqual([]);
    const { items } = await world.kube.listAll(DEPLOYMENTS, { namespace: world.namespace });
    expect(items.map(({ metadata }) => metadata.labels?.["berth.dev/environment"]).sort()).toEqual(
      makers.filter((name) => name.startsWith("workers" satisfies Mode)).sort(),
    );
    await operator.stop();
  });
});

test("a template cannot set its Pods' owners, nor the labels and annotations that Berth relies on", async () => {
  await using world = await startWorld(cluster, { timeScale: 1 });
  const owner = { apiVersion: "v1", kind: "ConfigMap", name: "mine", uid: "5f0c3b8a-9c4e-4b0e-8b1f-2d9f7f6f0a11" };
  for (const mode of MODES) {
    const owned = templateOf({ metadata: { ownerReferences: [{ ...owner, controller: true }] } });
    await createWith(world, mode, mode, owned);
    for (const kind of ["labels", "annotations"]) {
      const marked = templateOf({ metadata: { [kind]: { "berth.dev/needs": "[]" } } });
      expect(await refusalOf(world, environmentWith(world, `${mode}-x`, mode, marked))).toContain(
        "must not be set, because Berth sets them",
      );
    }
  }
  world.startOperator();
  await world.until("a Pod of each", () => world.pods.length === MODES.length);
  const kinds = world.pods.flatMap(({ metadata }) => metadata.ownerReferences?.map(({ kind }) => kind) ?? []);
  expect(kinds.sort()).toEqual(["Environment", "ReplicaSet"]);
});

/** More than a hundred Environments, each with a dry run and a Pod, on a busy machine. */
const PATIENCE_MS = 300_000;

function accepted(environment: Environment) {
  return environment.status?.conditions?.find(({ type }) => type === "TemplateAccepted");
}
