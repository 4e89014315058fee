import { createServer } from "node:http";

// The least that an operator in Node can be: a process that answers over HTTP. It writes where it listens, and tells every
// caller what its heap holds.
const server = createServer((_request, response) => response.end(JSON.stringify(process.memoryUsage())));
server.listen(0, "127.0.0.1", () => process.stdout.write(`127.0.0.1:${server.address().port}\n`));
