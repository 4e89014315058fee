import { getServers } from "node:dns";
import { expect, test } from "vitest";
import { ownNameServers } from "../src/operator.ts";

test("the operator's name servers are those of sandboxes in a Pod, and say nothing of them elsewhere", () => {
  expect(ownNameServers({ kubeEnvironment: {} })).toEqual([]);
  expect(ownNameServers({ kubeEnvironment: { KUBERNETES_SERVICE_HOST: "10.96.0.1" } })).toEqual(getServers());
  expect(getServers()).not.toEqual([]);
});
