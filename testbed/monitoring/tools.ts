import { findDebianPrograms } from "../cluster/debian-programs.ts";

/** The programs that tests of alerts and dashboards need, by Debian package. */
const PACKAGES = {
  prometheus: ["prometheus", "promtool"],
  "prometheus-alertmanager": ["prometheus-alertmanager", "amtool"],
} as const;

type Package = keyof typeof PACKAGES;
export type MonitoringTool = (typeof PACKAGES)[Package][number];

/** The path of each program. */
export type MonitoringTools = Readonly<Record<MonitoringTool, string>>;

const OTHERWISE =
  "Run `npm run setup:node` as root, or put Prometheus and Alertmanager with promtool and amtool on your PATH.";

/**
 * Returns the paths of Prometheus and Alertmanager and their tools: the user's own, or those of Debian's packages
 * (30 MB).
 * @throws MissingToolError if they aren't available
 */
export async function findMonitoringTools(env: NodeJS.ProcessEnv = process.env): Promise<MonitoringTools> {
  const found: [string, string][] = [];
  for (const [name, programs] of Object.entries(PACKAGES)) {
    found.push(...Object.entries(await findDebianPrograms({ name, programs, otherwise: OTHERWISE }, env)));
  }
  return Object.fromEntries(found) as MonitoringTools;
}
