/** A process with a process container, which a test kills: see process-runtime.test.ts. */
import { dirname } from "node:path";
import { realClock } from "../../../src/core/clock.ts";
import { Latency, seededRandom } from "../../../testbed/node/latency.ts";
import { ProcessRuntime } from "../../../testbed/node/process-runtime.ts";
import { boundPod } from "./pod-bench.ts";

// A program, a child in its process group, and a child outside it.
const code = `
  const { spawn } = require("child_process");
  const inside = spawn("sleep", ["600"], { stdio: "ignore" });
  const outside = spawn("sleep", ["600"], { detached: true, stdio: "ignore" });
  console.log(process.pid, inside.pid, outside.pid, process.env.HOME);
  process.on("SIGTERM", () => {});
  setInterval(() => {}, 1e6);
`;
const runtime = new ProcessRuntime({ clock: realClock });
const pod = boundPod({ containers: [{ command: [process.execPath, "-e", code] }] });
const [container] = pod.spec.containers;
if (!container) throw new Error("no container");
await runtime.start({
  pod,
  container,
  fate: undefined,
  runsToCompletion: false,
  env: {},
  restartCount: 0,
  latency: new Latency(seededRandom(1)),
  onExit: () => {},
  evict: () => {},
});

const poll = setInterval(async () => {
  const [line] = (await runtime.logs(pod, container.name)).split("\n", 1);
  if (!line) return;
  clearInterval(poll);
  const [main, inside, outside, home = ""] = line.split(" ");
  // HOME is <folder>/pods/<pod>/home.
  process.send?.({ pids: [main, inside, outside].map(Number), folder: dirname(dirname(dirname(home))) });
}, 20);
