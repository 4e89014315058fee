import { dirname } from "node:path";
import { addressOf, ROOT, titleOf } from "./pages.ts";

/** A page's or folder's path, or its path and a short name for it. The default name of a page is its heading. */
type Place = string | readonly [path: string, name: string];

/** The pages of a sidebar, by group. */
type Groups = Readonly<Record<string, readonly Place[]>>;

/** What users of Berth read. */
export const USERS: Groups = {
  "Get started": [
    ["README.md", "Overview"],
    "docs/quick-start.md",
    "docs/how-it-works.md",
    "docs/demo.md",
    "docs/alternatives.md",
  ],
  Install: [
    "docs/install.md",
    ["charts/berth/README.md", "Chart values"],
    "docs/kubernetes.md",
    "docs/hardening.md",
    "docs/other-work-apis.md",
    "docs/high-availability.md",
    "docs/multi-cluster.md",
    ["docs/gitops.md", "Argo CD and Flux"],
  ],
  "Run sessions": [
    "docs/worker-images.md",
    "examples/README.md",
    "docs/session-pods.md",
    ["docs/workspaces.md", "Workspaces"],
    "docs/parking.md",
    "docs/program-parking.md",
    ["docs/leases.md", "Leases"],
    "docs/workers.md",
    "docs/autoscaling.md",
    "docs/simulator.md",
  ],
  Operate: [
    "docs/troubleshooting.md",
    "docs/status.md",
    "docs/session-life.md",
    "docs/monitoring.md",
    ["docs/runbooks", "Runbooks"],
    "docs/console.md",
    "docs/cli.md",
    "docs/performance.md",
    "docs/request-budget.md",
    "docs/webhooks.md",
  ],
  Security: [
    ["docs/security.md", "Guarantees and limits"],
    "docs/sandbox-safety.md",
    "docs/pod-policy.md",
    ["SECURITY.md", "Report a vulnerability"],
  ],
  Reference: [
    "docs/spec/environment.md",
    "docs/flags.md",
    "docs/metrics.md",
    "docs/metric-labels.md",
    "docs/errors.md",
    "CHANGELOG.md",
  ],
};

/** What only people who change Berth need. */
export const MAINTAINERS: Groups = {
  Contribute: [
    "CONTRIBUTING.md",
    "docs/architecture.md",
    ["init/README.md", "First process"],
    ["docs/decisions", "Decisions"],
    "docs/releasing.md",
  ],
  Test: [
    "docs/test-helpers.md",
    "docs/model.md",
    "docs/faults.md",
    "docs/e2e.md",
    "docs/images.md",
    "docs/simulated-node.md",
    "docs/soak.md",
  ],
  Measure: [["docs/performance", "Benchmarks"]],
};

/** An entry of VitePress's sidebar. */
export interface Entry {
  readonly text: string;
  /** From the root of the site, without an extension. */
  readonly link?: string;
  readonly collapsed?: boolean;
  readonly items?: readonly Entry[];
}

/**
 * The sidebars of VitePress, by the beginning of the addresses of their pages. A page in a folder is below the folder's
 * entry, or below the page of the folder's name (docs/workspaces/volumes.md and docs/workspaces.md).
 * @throws Error naming the pages without a place
 */
export async function sidebars(
  pages: readonly string[],
  users = USERS,
  maintainers = MAINTAINERS,
  root = ROOT,
): Promise<Record<string, Entry[]>> {
  const placed = new Set([...pathsOf(users), ...pathsOf(maintainers)]);
  const parentOf = (page: string) =>
    [dirname(page), `${dirname(page)}.md`].find((path) => placed.has(path) && !placed.has(page));
  const lost = pages.filter((page) => !placed.has(page) && parentOf(page) === undefined);
  if (lost.length > 0) throw new Error(`site/navigation.ts has no place for ${lost.join(", ")}: add it to a group`);
  const below = (path: string) => pages.filter((page) => parentOf(page) === path);
  const [forUsers, forMaintainers] = [await entriesOf(users, below, root), await entriesOf(maintainers, below, root)];
  const maintainerPages = pathsOf(maintainers).map((path) => [linkOf(path), forMaintainers] as const);
  // VitePress takes the first of those whose paths have the same number of parts.
  return { ...Object.fromEntries(maintainerPages), "/": forUsers };
}

function pathsOf(groups: Groups): string[] {
  return Object.values(groups).flatMap((places) =>
    places.map((place) => (typeof place === "string" ? place : place[0])),
  );
}

/** The first group is open. VitePress also opens the group of the current page. */
function entriesOf(groups: Groups, below: (path: string) => string[], root: string): Promise<Entry[]> {
  return Promise.all(
    Object.entries(groups).map(async ([text, places], index) => ({
      text,
      collapsed: index > 0,
      items: await Promise.all(places.map((place) => entryOf(place, below, root))),
    })),
  );
}

async function entryOf(place: Place, below: (path: string) => string[], root: string): Promise<Entry> {
  const [path, name] = typeof place === "string" ? [place] : place;
  const entry = { text: name ?? (await titleOf(path, root)), link: linkOf(path) };
  const items = below(path).map(async (page) => ({ text: await titleOf(page, root), link: linkOf(page) }));
  return items.length === 0 ? entry : { ...entry, collapsed: true, items: await Promise.all(items) };
}

function linkOf(path: string): string {
  return `/${addressOf(path)}`.replace(/(index)?\.md$/, "");
}
