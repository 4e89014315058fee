/**
 * Reads endless lists from a Work API, AT_A_TIME at once, and prints how they failed and how much memory that took. The
 * parent process gives it a small heap, so it crashes if it buffers more than its limit.
 *
 * `read-endless-lists.ts BASE_URL AT_A_TIME`
 */
import { realClock } from "../../src/core/clock.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { WorkHttp } from "../../src/work/http.ts";
import { ENVIRONMENT, KEY } from "./samples.ts";

const [baseUrl = "", atATime = "1"] = process.argv.slice(2);
const http = new WorkHttp({ clock: realClock });
const client = new WorkApiClient({
  baseUrl,
  environmentId: ENVIRONMENT,
  key: () => KEY,
  workerId: "berth-0",
  http,
  clock: realClock,
  // On a busy machine, a body that arrives byte by byte takes minutes. The size limit must end it, not the timeout.
  requestTimeoutMs: 300_000,
});
const kinds: Record<string, number> = {};
// Each call requests its page again, with fewer items.
const calls = Array.from({ length: Number(atATime) }, () => client.list());
for (const { status, ...rest } of await Promise.allSettled(calls)) {
  const { reason } = rest as { reason?: unknown };
  const kind = reason instanceof WorkApiError ? reason.kind : status;
  kinds[kind] = (kinds[kind] ?? 0) + 1;
}
await http.destroy();
process.stdout.write(JSON.stringify({ kinds, maxRssBytes: process.resourceUsage().maxRSS * 1024 }));
process.exit(0);
