import { describe, expect, test } from "vitest";
import { ANNOTATION_ENDED_TURN, LABEL_MANAGED_BY, LABEL_ROLE } from "../../src/api/names.ts";
import { MOST_TURNS, turnName } from "../../src/pods/turns.ts";
import { render, type Values } from "../support/chart.ts";

const HOME = "berth-system";
const KINDS = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];

/** The verbs of the operator's rights on ephemeral containers, one entry for each rule. */
async function turnVerbs(values: Values): Promise<string[][]> {
  const { objects } = await render(HOME, values);
  const rules = objects.flatMap(({ rules = [] }) => rules);
  return rules.filter(({ resources }) => resources.includes("pods/ephemeralcontainers")).map(({ verbs }) => [...verbs]);
}

describe("the right to add turns", () => {
  test.each<[string, Values, number]>([
    ["is given by default", {}, 1],
    ["is given with values of an older chart", { rbac: { ephemeralContainers: null } }, 1],
    ["is given in each namespace that is served", { namespaces: ["agents", "batch"] }, 2],
    ["is left out with rbac.ephemeralContainers=false", { rbac: { ephemeralContainers: false } }, 0],
    ["is left out with rbac.attach=false, since a turn waits for a line", { rbac: { attach: false } }, 0],
  ])("%s", async (_name, values, count) => {
    expect(await turnVerbs(values)).toEqual(Array(count).fill(["patch"]));
  });
});

describe("the policies for the operator's account", () => {
  test.each(["attach-policy", "turn-policy"])("%s is bound, denies, and names the account", async (name) => {
    const rendered = await render(HOME, { serviceAccount: { name: "mine" } });
    const [policy, binding] = KINDS.map((kind) => rendered.one(kind, `-${name}`));
    const expression = `request.userInfo.username == 'system:serviceaccount:${HOME}:mine'`;
    expect(policy?.spec).toMatchObject({ failurePolicy: "Fail", matchConditions: [{ expression }] });
    expect(binding?.spec).toMatchObject({ policyName: policy?.metadata.name, validationActions: ["Deny"] });
  });

  test("know the names that the operator uses", async () => {
    const { spec } = (await render(HOME)).one("ValidatingAdmissionPolicy", "-turn-policy");
    const text = JSON.stringify(spec.validations);
    for (const name of [LABEL_MANAGED_BY, LABEL_ROLE, ANNOTATION_ENDED_TURN]) expect(text).toContain(`[?'${name}']`);
    const [, pattern = ""] = /turn\.name\.matches\('([^']+)'\)/.exec(text) ?? [];
    for (const turn of [1, 10, MOST_TURNS]) expect(turnName(turn)).toMatch(new RegExp(pattern));
  });
});
