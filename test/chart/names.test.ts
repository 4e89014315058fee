import { join } from "node:path";
import { expect, test } from "vitest";
import { parseManifests } from "../../testbed/cluster/manifests.ts";
import { CHART, helm } from "../../tools/helm.ts";
import { ROOT } from "../project/lint-gate.ts";
import { Rendered } from "../support/chart.ts";

/** The chart of the previous release. */
const PREVIOUS = join(ROOT, "test/fixtures/charts/berth-0.1.0.tgz");

const WEBHOOK = ["--set", "webhook.enabled=true,webhook.secret=webhooks,replicas=2"];

const template = (release: string, chart: string, args: readonly string[]) =>
  helm(["template", release, chart, "--namespace", "berth-system", "--set", "image.repository=berth", ...args]);

async function rendered(release: string, args: readonly string[] = [], chart = CHART): Promise<Rendered> {
  const { code, stdout, stderr } = await template(release, chart, args);
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
  const refused = [
    await template("1berth", CHART, []),
    await template("berth", CHART, ["--set-string", "fullnameOverride=1x"]),
  ];
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

test("ordinary releases keep the names of the previous release", async () => {
  for (const release of ["berth", "sandbox", "agents-berth", "a--b", `${"b".repeat(39)}-berth-long`]) {
    const [before, now] = await Promise.all([rendered(release, [], PREVIOUS), rendered(release)]);
    for (const kind of ["Deployment", "Service", "ServiceAccount", "Role", "RoleBinding"])
      expect(ofKind(now, kind), release).toEqual(ofKind(before, kind));
  }
});
