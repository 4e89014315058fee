import { parentPort, workerData } from "node:worker_threads";
import type { Scope } from "../../../model/scopes.ts";
import { judge } from "../../model/judge.ts";

// Explores one large scope in its own thread: see large-scopes.test.ts.

parentPort?.postMessage(judge(workerData as Scope));
