// The runtime of a sandbox of agent-sandbox's kind: it runs what an HTTP call names, and answers at its end
// (examples/python-runtime-sandbox of that project; its router calls the same path of the Pod's address).
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { json } from "node:stream/consumers";

createServer(async (request, response) => {
  if (request.method !== "POST" || request.url !== "/execute") return void response.end("ok");
  const { command, env } = await json(request);
  const child = spawn(command[0], command.slice(1), { env: { ...process.env, ...env }, stdio: "inherit" });
  const [code] = await once(child, "exit");
  response.end(JSON.stringify({ exit_code: code }));
}).listen(8888);
process.once("SIGTERM", () => process.exit(0));
