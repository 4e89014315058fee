/**
 * One `stats` call in its own process, because Node reads some environment variables only at its start. Prints the
 * outcome as JSON.
 */
import { realClock } from "../../src/core/clock.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { WorkApiError } from "../../src/work/errors.ts";
import { WorkHttp } from "../../src/work/http.ts";

const http = new WorkHttp({ clock: realClock });
const client = new WorkApiClient({
  baseUrl: process.argv[2] ?? "",
  environmentId: "env_01",
  key: () => "sk-ant-oat01-abcdefgh",
  workerId: "berth-0",
  http,
  clock: realClock,
  requestTimeoutMs: 15_000,
});
try {
  const { value } = await client.stats();
  console.log(JSON.stringify({ depth: value.depth }));
} catch (error) {
  if (!(error instanceof WorkApiError)) throw error;
  console.log(JSON.stringify({ kind: error.kind, maybeApplied: error.maybeApplied, message: error.message }));
}
await http.close();
