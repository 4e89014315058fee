#!/usr/bin/env node
// Starts Berth: from its sources in a checkout (Node strips the types), from dist in an image. Sources come first, so
// that a dist built yesterday is never what runs today. Plain JavaScript, so that an old Node can say what is wrong.
import { existsSync } from "node:fs";

const OLDEST_MAJOR = 24;

if (Number(process.versions.node.split(".")[0]) < OLDEST_MAJOR) {
  process.stderr.write(
    `berth: needs Node ${OLDEST_MAJOR} or newer; this is Node ${process.versions.node} (${process.execPath}).\n` +
      'In a checkout, `npm ci` brings a newer one along: export PATH="$PWD/node_modules/.bin:$PATH"\n',
  );
  process.exit(1);
}

const entry = ["../src/main.ts", "../dist/main.js"].map((path) => new URL(path, import.meta.url)).find(existsSync);
if (entry === undefined) {
  process.stderr.write("berth: neither src/main.ts nor dist/main.js is here; run `npm run build`\n");
  process.exit(1);
}
const { main } = await import(entry.href);
process.exitCode = await main(process.argv.slice(2));
