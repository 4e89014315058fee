import { expect, test } from "vitest";
import { parseManifests } from "../../testbed/cluster/manifests.ts";
import { CHART, helm } from "../../tools/helm.ts";
import { Rendered } from "../support/chart.ts";

const WEBHOOK = ["--set", "webhook.enabled=true,webhook.secret=webhooks,replicas=2"];

const template = (release: string, args: readonly string[]) =>
  helm(["template", release, CHART, "--namespace", "berth-system", "--set", "image.repository=berth", ...args]);

async function rendered(release: string, args: readonly string[] = []): Promise<Rendered> {
  const { code, stdout, stderr } = await template(release, args);
  if (code !== 0) throw new Error(stderr);
  return new Rendered(parseManifests(stdout, "the rendered chart"));
}

const ofKind = (release: Rendered, kind: string) => release.all(kind).map(({ metadata }) => metadata.name);

/** Valid names of an object (RFC 1123 subdomain) and of a Service (RFC 1035 label). */
const SUBDOMAIN = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const SERVICE = /^(?=.{1,63}$)[a-z]([-a-z0-9]*[a-z0-9])?$/;

test.each([
  ["berth.prod", ["berth-prod-operator-metrics", "berth-prod-operator-webhook", "berth-prod-operator-webhook-peers"]],
  // Cut for a suffix, right after the dot; and the longest name that helm accepts.
  [`${"b".repeat(34)}.berth.and.more`, undefined],
  [`${"b".repeat(39)}.berth`, undefined],
  ["b".repeat(53), undefined],
])("a release called %s has names that Kubernetes accepts", async (release, services) => {
  const all = await rendered(release, WEBHOOK);
  for (const { kind, metadata } of all.objects) expect(metadata.name, kind).toMatch(SUBDOMAIN);
  for (const name of ofKind(all, "Service")) expect(name).toMatch(SERVICE);
  if (services) expect(ofKind(all, "Service")).toEqual(services);
  const peers = all.container.args.find((word) => word.startsWith("--webhook-peers=")) ?? "";
  expect(ofKind(all, "Service")).toContain(/=(.*)\.berth-system\.svc:/.exec(peers)?.[1]);
});

test("a Service name that would begin with a digit is refused, with the fix, but other names are not", async () => {
  const refused = [await template("1berth", []), await template("berth", ["--set-string", "fullnameOverride=1x"])];
  for (const { code, stderr } of refused) {
    expect(code).not.toBe(0);
    expect(stderr).toMatch(
      /1(berth|x)-operator-metrics is not a name of a Service; set fullnameOverride to a name that begins with a letter/,
    );
  }
  expect(ofKind(await rendered("1berth", ["--set", "metrics.enabled=false"]), "Deployment")).toEqual([
    "1berth-operator",
  ]);
});
