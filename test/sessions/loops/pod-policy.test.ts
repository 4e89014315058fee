import { expect, test } from "vitest";
import { PODS } from "../../../src/kube/resource.ts";
import { LoopWorld, NAMESPACE } from "./loop-world.ts";

const SLOW_MS = 5_000;

test("makes no Pod of a template that the policy forbids, also while the key is still read for the changed spec", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 1 } });
  world.createEnvironment();
  const { kube } = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const [parked] = world.parked;
  const privileged: unknown[] = [];
  let isReading = false;
  kube.intercept.push(({ verb, plural, body }) => {
    if (verb === "create" && plural === "pods" && JSON.stringify(body).includes('"privileged":true'))
      privileged.push(body);
  });
  kube.delay = ({ verb, plural }) => {
    if (verb !== "get" || plural !== "secrets") return 0;
    isReading = true;
    return SLOW_MS;
  };
  const containers = [{ name: "worker", image: "worker:1", securityContext: { privileged: true } }];
  // Another bound of requests makes another client, which wants the key read anew.
  world.patchEnvironment({
    spec: { api: { requestTimeoutSeconds: 11 }, sessions: { warm: 3, template: { spec: { containers } } } },
  });
  await world.until("the key is being read", () => isReading);
  // Whatever happens to a Pod has the loops plan anew, with leave from before.
  world.server.delete(PODS, NAMESPACE, parked?.metadata.name ?? "");
  await world.until("the template is forbidden", () => JSON.stringify(world.environment).includes("TemplateForbidden"));
  expect(privileged).toEqual([]);
  expect(world.parked).toEqual([]);
  expect([...world.wrongs, ...world.violations]).toEqual([]);
});
