import { parentPort, workerData } from "node:worker_threads";
import type { Scope } from "../../../model/scopes.ts";
import { judge } from "../../model/judge.ts";

// A thread of its own for one large scope: see large-scopes.test.ts.

parentPort?.postMessage(judge(workerData as Scope));
