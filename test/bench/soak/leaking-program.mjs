// A program that leaks one of every kind at each GET /leak, and serves metrics like the operator's.
import { openSync } from "node:fs";
import { createServer } from "node:http";
import { connect, createServer as createSink } from "node:net";

const kept = [];
const entries = new Map();
let series = "";

function leak() {
  kept.push(Buffer.alloc(2 ** 22), new Array(2 ** 18).fill(0.5));
  for (let i = 0; i < 1_000; i += 1) entries.set(entries.size, new Set([i]));
  for (let i = 0; i < 100; i += 1) kept.push(setTimeout(() => {}, 3_600_000).unref(), new AbortController().signal);
  for (let i = 0; i < 10; i += 1) {
    openSync(import.meta.filename, "r");
    kept.push(connect(sink.address().port, "127.0.0.1"));
    series += `gone{namespace="n",environment="e${entries.size}-${i}"} 1\n`;
  }
}

// An HTTP server would close connections that send no request.
const sink = createSink((socket) => kept.push(socket)).listen(0, "127.0.0.1");
const server = createServer((request, response) => {
  if (request.url === "/leak") leak();
  response.end(`# HELP up Of the program.\nup 1\n${series}`);
}).listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().once("end", () => process.exit());
