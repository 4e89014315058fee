import { expect, test } from "vitest";
import type { KubeObject } from "../../../src/kube/resource.ts";
import { templateOf } from "../../policy/template-cases.ts";
import { useCluster } from "../../support/cluster.ts";
import { startWorld, type World } from "../../support/world.ts";
import { installAdmissionPolicy } from "./admission-policy.ts";
import { environmentWith, type Json, refusalOf, untilEnforced } from "./environments.ts";

const cluster = useCluster();

const ALLOWED = ["https://api.anthropic.com", "http://127.0.0.1:8080", "https://a.b:8443"];
const FORBIDDEN = [
  ...["https://api.anthropic.com:443", "https://API.Anthropic.com", "https://a.b"],
  ...["http://api.anthropic.com", "http://127.0.0.1:8081", "https://example.com", "https://kubernetes.default.svc"],
  ...["https://api.anthropic.com.example.com", "https://169.254.169.254", "https://[::1]", "http://2130706433:8080"],
];

/** An Environment whose Work API has this base URL. */
function environmentAt(world: World, baseUrl: string): KubeObject {
  const environment = environmentWith(world, "somewhere", "sessions", templateOf({})) as KubeObject & {
    readonly spec: Json;
  };
  return { ...environment, spec: { ...environment.spec, api: { baseUrl, keySecretRef: { name: "key" } } } };
}

test("an Environment's Work API is refused at admission unless the chart lists it, and older ones stay", async () => {
  await using world = await startWorld(cluster);
  await world.createEnvironment();
  await using _policy = await installAdmissionPolicy(cluster.api, world.namespace, ALLOWED);
  await untilEnforced(world, environmentAt(world, "https://example.com"));
  for (const origin of ALLOWED) expect(await refusalOf(world, environmentAt(world, origin)), origin).toBeNull();
  for (const origin of FORBIDDEN)
    expect(await refusalOf(world, environmentAt(world, origin)), origin).toMatch(
      /may not send keys.*allowedApiOrigins/,
    );
  await world.patchSpec({ paused: true });
});
