import { createServer } from "node:http";

// The smallest operator that Node allows: a process that answers over HTTP. It prints its address and answers every
// request with its memory usage.
const server = createServer((_request, response) => response.end(JSON.stringify(process.memoryUsage())));
server.listen(0, "127.0.0.1", () => process.stdout.write(`127.0.0.1:${server.address().port}\n`));
