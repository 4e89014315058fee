import { getServers } from "node:dns";
import { expect, test } from "vitest";
import { ownNameServers } from "../src/operator.ts";

test("uses the operator's name servers for sandboxes only if it runs in a Pod", () => {
  expect(ownNameServers({ kubeEnvironment: {} })).toEqual([]);
  expect(ownNameServers({ kubeEnvironment: { KUBERNETES_SERVICE_HOST: "10.96.0.1" } })).toEqual(getServers());
  expect(getServers()).not.toEqual([]);
});
