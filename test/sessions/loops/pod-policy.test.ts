import { expect, test } from "vitest";
import { PODS } from "../../../src/kube/resource.ts";
import { LoopWorld, NAMESPACE } from "./loop-world.ts";

const SLOW_MS = 5_000;

test("creates no Pod from a forbidden template, even while the key is still read for the changed spec", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 1 } });
  world.createEnvironment();
  const { kube } = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const [parked] = world.parked;
  const privileged: unknown[] = [];
  let isReading = false;
  kube.intercept.push(({ verb, plural, body, dryRun }) => {
    const creates = verb === "create" && plural === "pods" && dryRun !== true;
    if (creates && JSON.stringify(body).includes('"privileged":true')) privileged.push(body);
  });
  kube.delay = ({ verb, plural }) => {
    if (verb !== "get" || plural !== "secrets") return 0;
    isReading = true;
    return SLOW_MS;
  };
  const containers = [{ name: "worker", image: "worker:1", securityContext: { privileged: true } }];
  // A changed workspace makes the operator create a new client and read the key again.
  world.patchEnvironment({
    spec: { api: { workspaceId: "wrkspc_other" }, sessions: { warm: 3, template: { spec: { containers } } } },
  });
  await world.until("the key is being read", () => isReading);
  // Any change of a Pod makes the loops plan again, with the earlier permission.
  world.server.delete(PODS, NAMESPACE, parked?.metadata.name ?? "");
  await world.until("the status reports TemplateForbidden", () =>
    JSON.stringify(world.environment).includes("TemplateForbidden"),
  );
  expect(privileged).toEqual([]);
  expect(world.parked).toEqual([]);
  expect([...world.wrongs, ...world.violations]).toEqual([]);
});
